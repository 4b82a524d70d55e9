// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/prefix_match.h"

#include <algorithm>

#include "crypto/prefix_kernels.h"
#include "host/headers.h"

namespace e2 {
namespace {

constexpr size_t kBatch = kMaxLookups;

uint32_t batch_size(size_t left) { return static_cast<uint32_t>(std::min(left, kBatch)); }

}  // namespace

PrefixMap::PrefixMap(const EncryptedPrefixes& prefixes, const uint8_t* key)
    : domain_bits_(prefixes.domain_bits),
      prefix_bits_(prefixes.prefix_bits),
      key_(key),
      index_(prefixes) {}

size_t PrefixMap::first_outside(const uint64_t* values, size_t count) const {
  if (domain_bits_ >= 64) return count;
  size_t i = 0;
  while (i < count && values[i] >> domain_bits_ == 0) ++i;
  return i;
}

size_t PrefixMap::first_outside_wide(const uint8_t* values, size_t count) const {
  if (domain_bits_ == kMaxDomainBits) return count;
  const uint32_t upper_bits = domain_bits_ - 64;
  size_t i = 0;
  while (i < count && load_be64(values + i * kAesBlock) >> upper_bits == 0) ++i;
  return i;
}

void PrefixMap::find(const uint64_t* values, uint32_t count, Cell* prefixes) const {
  if (domain_bits_ <= 16) {
    index_.find_narrow(values, count, prefixes);
  } else if (domain_bits_ <= 32) {
    uint32_t scaled[kBatch];
    const uint32_t shift = 32 - domain_bits_;
    for (uint32_t i = 0; i < count; ++i) scaled[i] = static_cast<uint32_t>(values[i]) << shift;
    index_.find_ipv4(scaled, count, prefixes);
  } else {
    uint64_t scaled[kBatch];
    const uint64_t low[kBatch] = {};
    const uint32_t shift = 64 - domain_bits_;
    for (uint32_t i = 0; i < count; ++i) scaled[i] = values[i] << shift;
    index_.find(scaled, low, count, prefixes);
  }
}

void PrefixMap::find_wide(const uint8_t* values, uint32_t count, Cell* prefixes) const {
  uint64_t high[kBatch];
  uint64_t low[kBatch];
  for (uint32_t i = 0; i < count; ++i) {
    high[i] = load_be64(values + i * kAesBlock);
    low[i] = load_be64(values + i * kAesBlock + 8);
  }
  if (domain_bits_ < kMaxDomainBits) {
    const uint32_t shift = kMaxDomainBits - domain_bits_;
    for (uint32_t i = 0; i < count; ++i) {
      high[i] = high[i] << shift | low[i] >> (64 - shift);
      low[i] <<= shift;
    }
  }
  index_.find(high, low, count, prefixes);
}

void PrefixMap::encrypt(const uint64_t* values, const uint8_t* seeds, uint64_t* encrypted,
                        size_t count) const {
  const SuffixKey key = {key_, domain_bits_, prefix_bits_};
  Cell prefixes[kBatch];
  for (size_t done = 0; done < count; done += kBatch) {
    const uint32_t part = batch_size(count - done);
    find(values + done, part, prefixes);
    prefix_kernels().join(key, values + done, seeds + done * kAesBlock, prefixes, part,
                          encrypted + done);
  }
}

void PrefixMap::encrypt_wide(const uint8_t* values, const uint8_t* seeds, uint8_t* encrypted,
                             size_t count) const {
  const SuffixKey key = {key_, domain_bits_, prefix_bits_};
  Cell prefixes[kBatch];
  for (size_t done = 0; done < count; done += kBatch) {
    const uint32_t part = batch_size(count - done);
    const size_t at = done * kAesBlock;
    find_wide(values + at, part, prefixes);
    prefix_kernels().join_wide(key, values + at, seeds + at, prefixes, part, encrypted + at);
  }
}

void PrefixMap::encrypt_ipv4(const uint32_t* values, const uint8_t* seeds, uint8_t* encrypted,
                             size_t count) const {
  const SuffixKey key = {key_, domain_bits_, prefix_bits_};
  Cell prefixes[kBatch];
  for (size_t done = 0; done < count; done += kBatch) {
    const uint32_t part = batch_size(count - done);
    const size_t at = done * kAesBlock;
    index_.find_ipv4(values + done, part, prefixes);
    prefix_kernels().join_ipv4(key, values + done, seeds + at, prefixes, part, encrypted + at);
  }
}

}  // namespace e2
