// SPDX-License-Identifier: BSD-3-Clause
#include "host/checksum.h"

#include "host/isa.h"

namespace e2 {
namespace {

constexpr size_t kChunk = 64;
constexpr size_t kSums = 8;

// The compiler makes vectors of it, as wide as its caller's target has.
[[gnu::always_inline]] inline uint64_t sum_chunks(const uint8_t* bytes, size_t len) {
  uint64_t sums[kSums] = {};
  for (size_t at = 0; at < len; at += kChunk) {
    for (size_t i = 0; i < kSums; ++i) sums[i] += ones_word(bytes + at + 4 * i);
    for (size_t i = 0; i < kSums; ++i) sums[i] += ones_word(bytes + at + kChunk / 2 + 4 * i);
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

using Sum = uint64_t (*)(const uint8_t* bytes, size_t len);

uint64_t sum_portable(const uint8_t* bytes, size_t len) { return sum_chunks(bytes, len); }
#if defined(__x86_64__)
E2_TARGET_AVX2 uint64_t sum_avx2(const uint8_t* bytes, size_t len) {
  return sum_chunks(bytes, len);
}
E2_TARGET_AVX512 uint64_t sum_avx512(const uint8_t* bytes, size_t len) {
  return sum_chunks(bytes, len);
}
#endif

Sum best_sum() {
#if defined(__x86_64__)
  return pick<Sum>(sum_portable, sum_avx2, sum_avx512);
#else
  return sum_portable;
#endif
}

}  // namespace

uint64_t ones_of_many(const uint8_t* bytes, size_t len) {
  static const Sum sum = best_sum();
  const size_t whole = len / kChunk * kChunk;
  return ones_add_short(sum(bytes, whole), bytes + whole, len - whole);
}

}  // namespace e2
