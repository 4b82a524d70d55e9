// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/prefix_kernels.h"

#include <cstring>

#include "crypto/block.h"
#include "host/headers.h"
#include "host/isa.h"

namespace e2 {
namespace {

constexpr uint64_t kMapped = uint64_t{0xffff} << 32;  // lower half of ::ffff:0:0

Block as_block(Wide value) {
  return Block{__builtin_bswap64(static_cast<uint64_t>(value >> 64)),
               __builtin_bswap64(static_cast<uint64_t>(value))};
}

Wide suffix_mask(const SuffixKey& key) {
  return (Wide{1} << (key.domain_bits - key.prefix_bits)) - 1;
}

struct alignas(64) Blocks {
  uint8_t bytes[kMaxLookups * kAesBlock];

  uint8_t* operator[](size_t i) { return bytes + i * kAesBlock; }
};

void join_any(const SuffixKey& key, const uint64_t* values, const uint8_t* seeds,
              const Cell* prefixes, uint32_t count, uint64_t* encrypted) {
  Blocks blocks;
  for (size_t i = 0; i < count; ++i) {
    store_block(blocks[i], load_block(seeds + i * kAesBlock) ^ as_block(values[i]));
  }
  aes_blocks(key.aes, blocks.bytes, blocks.bytes, count);
  const auto mask = static_cast<uint64_t>(suffix_mask(key));
  const uint32_t shift = 64 - key.domain_bits;
  for (size_t i = 0; i < count; ++i) {
    encrypted[i] =
        static_cast<uint64_t>(prefixes[i]) << 32 >> shift | (load_be64(blocks[i] + 8) & mask);
  }
}

void finish_wide(const SuffixKey& key, Blocks& blocks, const Cell* prefixes, uint32_t count,
                 uint8_t* encrypted) {
  aes_blocks(key.aes, blocks.bytes, blocks.bytes, count);
  const Block mask = as_block(suffix_mask(key));
  const uint32_t unused = kMaxDomainBits - key.domain_bits;
  for (size_t i = 0; i < count; ++i) {
    const Block prefix = as_block(static_cast<Wide>(prefixes[i]) << 96 >> unused);
    store_block(encrypted + i * kAesBlock, (load_block(blocks[i]) & mask) | prefix);
  }
}

void join_wide_any(const SuffixKey& key, const uint8_t* values, const uint8_t* seeds,
                   const Cell* prefixes, uint32_t count, uint8_t* encrypted) {
  Blocks blocks;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = i * kAesBlock;
    store_block(blocks[i], load_block(seeds + at) ^ load_block(values + at));
  }
  finish_wide(key, blocks, prefixes, count, encrypted);
}

void join_ipv4_any(const SuffixKey& key, const uint32_t* values, const uint8_t* seeds,
                   const Cell* prefixes, uint32_t count, uint8_t* encrypted) {
  Blocks blocks;
  for (size_t i = 0; i < count; ++i) {
    store_block(blocks[i], load_block(seeds + i * kAesBlock) ^ as_block(kMapped | values[i]));
  }
  finish_wide(key, blocks, prefixes, count, encrypted);
}

const PrefixKernels& choose() {
#if defined(__x86_64__)
  if (isa_extras().vaes) return kPrefixVaes;
#endif
  return kPrefixAny;
}

}  // namespace

const PrefixKernels kPrefixAny = {join_any, join_wide_any, join_ipv4_any};

const PrefixKernels& prefix_kernels() {
  static const PrefixKernels& chosen = choose();
  return chosen;
}

}  // namespace e2
