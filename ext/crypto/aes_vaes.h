// SPDX-License-Identifier: BSD-3-Clause
// AES on 512-bit vectors, 4 blocks each: what the VAES kernels are made of.
#pragma once

#if defined(__x86_64__)

// g++ 12 warns of the values that its own header leaves undefined on purpose.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "crypto/aes.h"
#include "host/isa.h"

namespace e2::vaes {

constexpr size_t kVector = 64;  // bytes

struct Rounds {
  __m512i key[AesKey::kRounds];
  __m512i more[AesKey::kLongRounds - AesKey::kRounds];  // of a long key
  __m512i last;
  bool is_long;
};

E2_TARGET_VAES inline __m512i load_round(const AesKey& key, int i) {
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(key.round(i))));
}

E2_TARGET_VAES inline Rounds load_rounds(const AesKey& key) {
  Rounds rounds;
  for (int i = 0; i < AesKey::kRounds; ++i) rounds.key[i] = load_round(key, i);
  rounds.is_long = key.is_long();
  if (rounds.is_long) {
    for (int i = AesKey::kRounds; i < AesKey::kLongRounds; ++i) {
      rounds.more[i - AesKey::kRounds] = load_round(key, i);
    }
  }
  rounds.last = load_round(key, key.rounds());
  return rounds;
}

template <size_t kVectors>
E2_TARGET_VAES inline void encrypt(const Rounds& rounds, __m512i* x) {
  for (size_t i = 0; i < kVectors; ++i) x[i] = _mm512_xor_si512(x[i], rounds.key[0]);
  for (int round = 1; round < AesKey::kRounds; ++round) {
    for (size_t i = 0; i < kVectors; ++i) x[i] = _mm512_aesenc_epi128(x[i], rounds.key[round]);
  }
  if (rounds.is_long) {
    for (const __m512i& key : rounds.more) {
      for (size_t i = 0; i < kVectors; ++i) x[i] = _mm512_aesenc_epi128(x[i], key);
    }
  }
  for (size_t i = 0; i < kVectors; ++i) x[i] = _mm512_aesenclast_epi128(x[i], rounds.last);
}

E2_TARGET_VAES inline __mmask64 first_bytes(size_t count) {
  return count >= kVector ? ~__mmask64{0} : _bzhi_u64(~uint64_t{0}, static_cast<uint32_t>(count));
}

// Bytes of each block from last to first.
E2_TARGET_VAES inline __m512i reverse_each(__m512i x) {
  const __m512i order =
      _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  return _mm512_shuffle_epi8(x, order);
}

}  // namespace e2::vaes

#endif
