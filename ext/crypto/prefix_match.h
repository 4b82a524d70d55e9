// SPDX-License-Identifier: BSD-3-Clause
// PrefixMatch: values of a header field, encrypted so that they match encrypted prefixes (Embark;
// C. Lan's dissertation, section 4.2.2).
//
//   Enc(v) = prefix of v's interval ‖ the lower bits of AES_k(seed XOR v)
//
// The seed is a pseudorandom function of the flow's 5-tuple. With that, AES_k(seed XOR v) is what
// CBC-MAC computes over two blocks, a pseudorandom function of flow and value, without a key
// schedule for each flow. Within a flow equal values are encrypted alike; across flows nothing can
// be said; what lies in the same interval has no order.
//
// Each field (source and destination address, ports) needs a key of its own, or equal values of two
// fields of one packet would have equal suffixes. Blocks, seeds and values of more than 64 bits are
// big-endian; a shorter value has zeros before it; an IPv4 address is its IPv4-mapped IPv6 address.
//
// A map never changes; its values may be encrypted by many threads. Cost per value, in batches,
// with AVX-512 and VAES: docs/benchmarks.md.
#pragma once

#include <cstdint>

#include "crypto/aes.h"
#include "crypto/encrypt_prefixes.h"
#include "crypto/interval_index.h"

namespace e2 {

class PrefixMap {
 public:
  // `prefixes` must be ok; it isn't needed afterwards. The key has kAesKeyBytes.
  PrefixMap(const EncryptedPrefixes& prefixes, const uint8_t* key);

  uint32_t domain_bits() const { return domain_bits_; }
  uint32_t prefix_bits() const { return prefix_bits_; }
  size_t bytes() const { return sizeof *this + index_.bytes(); }

  // The first value that lies outside the domain, or `count`.
  size_t first_outside(const uint64_t* values, size_t count) const;
  size_t first_outside_wide(const uint8_t* values, size_t count) const;

  // Any number of values, with a seed of kAesBlock bytes each. Values must lie in the domain.
  // encrypt: domains of up to 64 bits.
  void encrypt(const uint64_t* values, const uint8_t* seeds, uint64_t* encrypted,
               size_t count) const;
  // encrypt_wide: domains of more, in kAesBlock bytes per value.
  void encrypt_wide(const uint8_t* values, const uint8_t* seeds, uint8_t* encrypted,
                    size_t count) const;
  // encrypt_ipv4: the domain of 128 bits.
  void encrypt_ipv4(const uint32_t* values, const uint8_t* seeds, uint8_t* encrypted,
                    size_t count) const;

 private:
  void find(const uint64_t* values, uint32_t count, Cell* prefixes) const;
  void find_wide(const uint8_t* values, uint32_t count, Cell* prefixes) const;

  uint32_t domain_bits_;
  uint32_t prefix_bits_;
  AesKey key_;
  IntervalIndex index_;
};

}  // namespace e2
