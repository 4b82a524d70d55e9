// SPDX-License-Identifier: BSD-3-Clause
// A full batch of 32 is 8 vectors, which never leave the registers between value and encryption.
#if defined(__x86_64__)

#include "crypto/aes_vaes.h"
#include "crypto/prefix_kernels.h"

namespace e2 {
namespace {

using namespace vaes;

constexpr size_t kVectors = kMaxLookups * kAesBlock / kVector;
constexpr size_t kLanes = kVector / kAesBlock;

// A number in the 32-bit lane of each block that `at` names, most significant byte first.
E2_TARGET_VAES inline __m512i spread(__m128i numbers, __mmask16 at) {
  const __m128i order = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
  const __m512i places = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  return _mm512_maskz_permutexvar_epi32(at, places,
                                        _mm512_castsi128_si512(_mm_shuffle_epi8(numbers, order)));
}

E2_TARGET_VAES inline __m128i load4(const uint32_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

// Encrypts the batch and puts the prefixes above. The domain has 128 bits.
E2_TARGET_VAES inline void finish_wide(const SuffixKey& key, __m512i* x, const Cell* prefixes,
                                       uint8_t* encrypted) {
  encrypt<kVectors>(load_rounds(key.aes), x);
  const uint32_t upper = ~uint32_t{0} >> key.prefix_bits;
  const __m512i mask = _mm512_mask_set1_epi32(_mm512_set1_epi32(-1), 0x1111,
                                              static_cast<int>(__builtin_bswap32(upper)));
  for (size_t i = 0; i < kVectors; ++i) {
    const __m512i prefix = spread(load4(prefixes + i * kLanes), 0x1111);
    _mm512_storeu_si512(encrypted + i * kVector,
                        _mm512_ternarylogic_epi64(x[i], mask, prefix, 0xea));  // x & mask | prefix
  }
}

E2_TARGET_VAES void join_wide_vaes(const SuffixKey& key, const uint8_t* values,
                                   const uint8_t* seeds, const Cell* prefixes, uint32_t count,
                                   uint8_t* encrypted) {
  if (count != kMaxLookups || key.domain_bits != kMaxDomainBits) {
    kPrefixAny.join_wide(key, values, seeds, prefixes, count, encrypted);
    return;
  }
  __m512i x[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    x[i] = _mm512_xor_si512(_mm512_loadu_si512(seeds + i * kVector),
                            _mm512_loadu_si512(values + i * kVector));
  }
  finish_wide(key, x, prefixes, encrypted);
}

E2_TARGET_VAES void join_ipv4_vaes(const SuffixKey& key, const uint32_t* values,
                                   const uint8_t* seeds, const Cell* prefixes, uint32_t count,
                                   uint8_t* encrypted) {
  if (count != kMaxLookups) {
    kPrefixAny.join_ipv4(key, values, seeds, prefixes, count, encrypted);
    return;
  }
  const __m512i mapped = _mm512_maskz_set1_epi32(0x4444, static_cast<int>(0xffff0000U));
  __m512i x[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    const __m512i value = spread(load4(values + i * kLanes), 0x8888);
    x[i] = _mm512_ternarylogic_epi64(_mm512_loadu_si512(seeds + i * kVector), value, mapped, 0x96);
  }
  finish_wide(key, x, prefixes, encrypted);
}

E2_TARGET_VAES inline __m512i reverse_quads(__m512i x) {
  const __m512i order =
      _mm512_broadcast_i32x4(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  return _mm512_shuffle_epi8(x, order);
}

E2_TARGET_VAES void join_vaes(const SuffixKey& key, const uint64_t* values, const uint8_t* seeds,
                              const Cell* prefixes, uint32_t count, uint64_t* encrypted) {
  if (count != kMaxLookups) {
    kPrefixAny.join(key, values, seeds, prefixes, count, encrypted);
    return;
  }
  const __m512i places = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
  __m512i x[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    const __m256i four = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + i * kLanes));
    const __m512i value =
        _mm512_maskz_permutexvar_epi64(0xaa, places, _mm512_castsi256_si512(four));
    x[i] = _mm512_xor_si512(_mm512_loadu_si512(seeds + i * kVector), reverse_quads(value));
  }
  encrypt<kVectors>(load_rounds(key.aes), x);
  const uint64_t suffix = (uint64_t{1} << (key.domain_bits - key.prefix_bits)) - 1;
  const __m256i mask = _mm256_set1_epi64x(static_cast<int64_t>(suffix));
  const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(64 - key.domain_bits));
  const __m512i lower = _mm512_set_epi64(7, 7, 7, 7, 7, 5, 3, 1);
  for (size_t i = 0; i < kVectors; ++i) {
    const __m256i blocks =
        _mm512_castsi512_si256(_mm512_permutexvar_epi64(lower, reverse_quads(x[i])));
    const __m256i wide = _mm256_cvtepu32_epi64(load4(prefixes + i * kLanes));
    const __m256i prefix = _mm256_srl_epi64(_mm256_slli_epi64(wide, 32), shift);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(encrypted + i * kLanes),
                        _mm256_ternarylogic_epi64(blocks, mask, prefix, 0xea));
  }
}

}  // namespace

const PrefixKernels kPrefixVaes = {join_vaes, join_wide_vaes, join_ipv4_vaes};

}  // namespace e2

#endif
