// SPDX-License-Identifier: BSD-3-Clause
// AddressPool: addresses that a provider may write into packets (of a NAT, of a load balancer's
// servers), with an encryption that can be undone.
//
//   Enc(address) = its prefix ‖ 64 bits that only pool addresses have ‖ its number, masked
//
// It is the same in all flows, or a NAT would not know its own address again. Any other address has
// such a suffix with a probability of 2^-64. Addresses are IPv6, IPv4 ones are IPv4-mapped.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "crypto/aes.h"
#include "crypto/prefix_match.h"
#include "crypto/site_keys.h"
#include "host/flow_hash.h"
#include "host/status.h"

namespace e2 {

using Address = std::array<uint8_t, 16>;

// ::ffff:a.b.c.d (RFC 4291, 2.5.5.2); the IPv4 address in host order.
constexpr size_t kMappedBytes = 12;  // of it before the IPv4 address
Address map_ipv4(uint32_t address);
bool is_mapped_ipv4(const Address& address);

class AddressPool {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr size_t kMaxAddresses = 65536;

  struct Entry {
    Address clear;
    Address encrypted;  // without prefix until set_prefixes
    bool nat;           // whoever writes the address writes a port as well
  };

  AddressPool() = default;
  explicit AddressPool(const AesKey& key);

  // False where it is there already.
  bool add(const Address& clear, bool nat);
  // The addresses of a NAT get the prefix that they have as sources, others that of destinations.
  void set_prefixes(const PrefixMap& sources, const PrefixMap& destinations);

  bool empty() const { return entries_.empty(); }
  const std::vector<Entry>& entries() const { return entries_; }
  const Entry& operator[](uint32_t i) const { return entries_[i]; }

  // Which entry it is, or kNone.
  uint32_t find_clear(const uint8_t* address) const {
    Words words;
    std::memcpy(words.of, address, sizeof words);
    return find(words);
  }
  uint32_t find_ipv4(uint32_t address) const {
    return find({{0, __builtin_bswap64(uint64_t{0xffff} << 32 | address)}});
  }
  uint32_t find_encrypted(const uint8_t* address) const;

 private:
  struct Words {
    uint64_t of[2];  // an address as it lies in memory
  };

  // Most addresses are not of the pool: in a table that is nearly empty the first look tells.
  uint32_t find(const Words& address) const {
    if (entries_.empty()) return kNone;
    const size_t slot = slot_of(address);
    return slots_[slot] == kNone ? kNone : find_from(slot, address);
  }
  size_t slot_of(const Words& address) const {
    return fold_multiply(address.of[0] ^ kFlowSeed, address.of[1] ^ mark_) & (slots_.size() - 1);
  }
  uint32_t find_from(size_t slot, const Words& address) const;
  void put(uint32_t entry);

  uint64_t mark_ = 0;  // as it lies in memory
  uint32_t mask_ = 0;
  std::vector<Entry> entries_;
  static constexpr size_t kSlotsPerEntry = 8;
  std::vector<uint32_t> slots_;  // kNone, or an entry
};

// Fills in `encrypted` of a pool's entries, as PrefixMatchEncrypt does with these keys and maps.
// EEXIST where an address is there twice, ENOSPC where there are too many.
Status encrypt_pool(const SiteKeys& keys, const EncryptedPrefixes& sources,
                    const EncryptedPrefixes& destinations,
                    std::vector<AddressPool::Entry>& entries);

}  // namespace e2
