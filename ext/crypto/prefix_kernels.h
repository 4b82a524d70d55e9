// SPDX-License-Identifier: BSD-3-Clause
// The second half of EncryptValue, per instruction set: suffixes for a batch of values whose
// prefixes have been found. Arguments are those of PrefixMap; at most kMaxLookups values.
#pragma once

#include <cstdint>

#include "crypto/aes.h"
#include "crypto/interval_index.h"

namespace e2 {

struct SuffixKey {
  const AesKey& aes;
  uint32_t domain_bits;
  uint32_t prefix_bits;
};

struct PrefixKernels {
  void (*join)(const SuffixKey& key, const uint64_t* values, const uint8_t* seeds,
               const Cell* prefixes, uint32_t count, uint64_t* encrypted);
  void (*join_wide)(const SuffixKey& key, const uint8_t* values, const uint8_t* seeds,
                    const Cell* prefixes, uint32_t count, uint8_t* encrypted);
  void (*join_ipv4)(const SuffixKey& key, const uint32_t* values, const uint8_t* seeds,
                    const Cell* prefixes, uint32_t count, uint8_t* encrypted);
};

extern const PrefixKernels kPrefixAny;
#if defined(__x86_64__)
extern const PrefixKernels kPrefixVaes;
#endif

const PrefixKernels& prefix_kernels();

}  // namespace e2
