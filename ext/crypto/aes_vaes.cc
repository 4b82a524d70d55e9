// SPDX-License-Identifier: BSD-3-Clause
// VAES and VPCLMULQDQ on 512-bit vectors: 4 blocks each, up to 32 in flight.
#if defined(__x86_64__)

#include "crypto/aes_vaes.h"

#include <algorithm>

#include "crypto/aes_kernels.h"
#include "host/headers.h"

namespace e2 {
namespace {

using namespace vaes;

constexpr size_t kStride = GcmKey::kStride * kAesBlock;
constexpr size_t kStrideVectors = kStride / kVector;

template <size_t kVectors>
E2_TARGET_VAES inline void blocks_step(const Rounds& rounds, const uint8_t* in, uint8_t* out) {
  __m512i x[kVectors];
  for (size_t i = 0; i < kVectors; ++i) x[i] = _mm512_loadu_si512(in + i * kVector);
  encrypt<kVectors>(rounds, x);
  for (size_t i = 0; i < kVectors; ++i) _mm512_storeu_si512(out + i * kVector, x[i]);
}

E2_TARGET_VAES void blocks_vaes(const AesKey& key, const uint8_t* in, uint8_t* out, size_t blocks) {
  const Rounds rounds = load_rounds(key);
  size_t len = blocks * kAesBlock;
  size_t done = 0;
  for (; len - done >= 8 * kVector; done += 8 * kVector) {
    blocks_step<8>(rounds, in + done, out + done);
  }
  for (; len - done >= 4 * kVector; done += 4 * kVector) {
    blocks_step<4>(rounds, in + done, out + done);
  }
  for (; done < len; done += kVector) {
    const __mmask64 mask = first_bytes(len - done);
    __m512i x = _mm512_maskz_loadu_epi8(mask, in + done);
    encrypt<1>(rounds, &x);
    _mm512_mask_storeu_epi8(out + done, mask, x);
  }
}

// nonce ‖ 0, put together in a register: a load right after two stores to its bytes would wait.
E2_TARGET_VAES inline __m128i load_nonce(const uint8_t* nonce) {
  return _mm_insert_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(nonce)),
                          static_cast<int>(__builtin_bswap32(load_be32(nonce + 8))), 2);
}

// Counter blocks with their bytes in reverse, so that counting is a 32-bit addition.
E2_TARGET_VAES inline __m512i first_counters(__m128i nonce, uint32_t counter) {
  const __m512i steps = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
  const __m512i start = _mm512_maskz_set1_epi32(0x1111, static_cast<int>(counter));
  return _mm512_add_epi32(reverse_each(_mm512_broadcast_i32x4(nonce)),
                          _mm512_add_epi32(start, steps));
}

E2_TARGET_VAES inline __m512i four_more() {
  return _mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4);
}

// Whole vectors of text; counters move on.
template <size_t kVectors>
E2_TARGET_VAES inline void ctr_step(const Rounds& rounds, __m512i& counters, const uint8_t* in,
                                    uint8_t* out) {
  __m512i x[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    x[i] = reverse_each(counters);
    counters = _mm512_add_epi32(counters, four_more());
  }
  encrypt<kVectors>(rounds, x);
  for (size_t i = 0; i < kVectors; ++i) {
    _mm512_storeu_si512(out + i * kVector,
                        _mm512_xor_si512(_mm512_loadu_si512(in + i * kVector), x[i]));
  }
}

// The last bytes, which may be any number up to kVectors vectors.
template <size_t kVectors>
E2_TARGET_VAES inline void ctr_rest(const Rounds& rounds, __m512i counters, const uint8_t* in,
                                    uint8_t* out, size_t len) {
  __m512i x[kVectors];
  for (size_t i = 0; i < kVectors; ++i) {
    x[i] = reverse_each(counters);
    counters = _mm512_add_epi32(counters, four_more());
  }
  encrypt<kVectors>(rounds, x);
  for (size_t i = 0; i < kVectors; ++i) {
    const __mmask64 mask = first_bytes(len - std::min(len, i * kVector));
    const __m512i text = _mm512_maskz_loadu_epi8(mask, in + i * kVector);
    _mm512_mask_storeu_epi8(out + i * kVector, mask, _mm512_xor_si512(text, x[i]));
  }
}

E2_TARGET_VAES void ctr_vaes(const AesKey& key, const uint8_t* nonce, uint32_t counter,
                             const uint8_t* in, uint8_t* out, size_t len) {
  if (len == 0) return;
  const Rounds rounds = load_rounds(key);
  __m512i counters = first_counters(load_nonce(nonce), counter);
  size_t done = 0;
  for (; len - done >= 8 * kVector; done += 8 * kVector) {
    ctr_step<8>(rounds, counters, in + done, out + done);
  }
  if (len - done >= 4 * kVector) {
    ctr_step<4>(rounds, counters, in + done, out + done);
    done += 4 * kVector;
  }
  const size_t rest = len - done;
  if (rest > 2 * kVector) {
    ctr_rest<4>(rounds, counters, in + done, out + done, rest);
  } else if (rest > kVector) {
    ctr_rest<2>(rounds, counters, in + done, out + done, rest);
  } else if (rest > 0) {
    ctr_rest<1>(rounds, counters, in + done, out + done, rest);
  }
}

// Products of blocks and powers, not yet reduced.
struct Sums {
  __m512i low;
  __m512i middle;
  __m512i high;
};

E2_TARGET_VAES inline __m512i xor3(__m512i a, __m512i b, __m512i c) {
  return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

// Four products: with three, as Karatsuba has it, a stride takes longer (Zen 4).
E2_TARGET_VAES inline void multiply_add(Sums& sums, __m512i x, __m512i h) {
  sums.low = _mm512_xor_si512(sums.low, _mm512_clmulepi64_epi128(x, h, 0x00));
  sums.high = _mm512_xor_si512(sums.high, _mm512_clmulepi64_epi128(x, h, 0x11));
  sums.middle =
      xor3(sums.middle, _mm512_clmulepi64_epi128(x, h, 0x01), _mm512_clmulepi64_epi128(x, h, 0x10));
}

E2_TARGET_VAES inline __m128i fold_lanes(__m512i x) {
  const __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
  return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

E2_TARGET_VAES inline __m128i reduce(const Sums& sums) {
  const __m128i polynomial = _mm_set_epi64x(0, static_cast<int64_t>(0xc200000000000000U));
  const __m128i middle = fold_lanes(sums.middle);
  __m128i low = _mm_xor_si128(fold_lanes(sums.low), _mm_slli_si128(middle, 8));
  const __m128i high = _mm_xor_si128(fold_lanes(sums.high), _mm_srli_si128(middle, 8));
  for (int i = 0; i < 2; ++i) {
    low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, polynomial, 0x00));
  }
  return _mm_xor_si128(low, high);
}

// Adds blocks up to the end of a stretch whose first block meets the power given. Where the last
// vector isn't full, its missing blocks are zeros, so that it doesn't matter which power they meet.
E2_TARGET_VAES inline void hash_text(Sums& sums, __m128i before, const uint8_t* power,
                                     const uint8_t* text, size_t len) {
  __m512i carried = _mm512_zextsi128_si512(before);
  for (size_t at = 0; at < len; at += kVector) {
    const __m512i part = _mm512_maskz_loadu_epi8(first_bytes(len - at), text + at);
    multiply_add(sums, _mm512_xor_si512(reverse_each(part), carried),
                 _mm512_loadu_si512(power + at));
    carried = _mm512_setzero_si512();
  }
}

E2_TARGET_VAES inline __m128i hash_all(const GcmKey& key, __m128i state, const uint8_t* text,
                                       size_t len) {
  while (len > 0) {
    const size_t part = std::min(len, kStride);
    const size_t blocks = (part + kAesBlock - 1) / kAesBlock;
    Sums sums = {};
    hash_text(sums, state, key.power(static_cast<int>(blocks)), text, part);
    state = reduce(sums);
    text += part;
    len -= part;
  }
  return state;
}

E2_TARGET_VAES void ghash_vaes(const GcmKey& key, uint8_t* state, const uint8_t* data,
                               size_t blocks) {
  const __m128i before = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state),
                   hash_all(key, before, data, blocks * kAesBlock));
}

E2_TARGET_VAES inline __m128i hash_stride(const __m512i* text, const __m512i* powers,
                                          __m128i state) {
  Sums sums = {};
  multiply_add(sums, _mm512_xor_si512(text[0], _mm512_zextsi128_si512(state)), powers[0]);
  for (size_t i = 1; i < kStrideVectors; ++i) multiply_add(sums, text[i], powers[i]);
  return reduce(sums);
}

// Encrypts and hashes whole strides. The hash runs one behind, so that neither waits.
E2_TARGET_VAES inline __m128i seal_strides(const GcmKey& key, const Rounds& rounds,
                                           __m512i& counters, __m128i state, const uint8_t* in,
                                           uint8_t* out, size_t len) {
  __m512i powers[kStrideVectors];
  for (size_t i = 0; i < kStrideVectors; ++i) {
    powers[i] = _mm512_loadu_si512(key.power(GcmKey::kStride) + i * kVector);
  }
  __m512i before[kStrideVectors];
  for (size_t done = 0; done < len; done += kStride) {
    __m512i x[kStrideVectors];
    for (__m512i& vector : x) {
      vector = reverse_each(counters);
      counters = _mm512_add_epi32(counters, four_more());
    }
    encrypt<kStrideVectors>(rounds, x);
    if (done > 0) state = hash_stride(before, powers, state);
    for (size_t i = 0; i < kStrideVectors; ++i) {
      x[i] = _mm512_xor_si512(x[i], _mm512_loadu_si512(in + done + i * kVector));
      _mm512_storeu_si512(out + done + i * kVector, x[i]);
      before[i] = reverse_each(x[i]);
    }
  }
  return hash_stride(before, powers, state);
}

// What is left of the text, less than a stride, in exactly so many vectors: one more would meet
// powers that don't exist. Returns the mask of the tag.
template <size_t kVectors, bool kSeal>
E2_TARGET_VAES inline __m128i last_text(const Rounds& rounds, __m512i counters, __m128i nonce,
                                        Sums& sums, __m128i state, const uint8_t* power,
                                        const uint8_t* in, uint8_t* out, size_t len) {
  __m512i x[kVectors + 1];
  for (size_t i = 0; i < kVectors; ++i) {
    x[i] = reverse_each(counters);
    counters = _mm512_add_epi32(counters, four_more());
  }
  x[kVectors] = _mm512_zextsi128_si512(_mm_insert_epi32(nonce, 1 << 24, 3));
  if (kSeal) {
    encrypt<kVectors + 1>(rounds, x);
  } else {
    encrypt<1>(rounds, x + kVectors);
  }
  __m512i carried = _mm512_zextsi128_si512(state);
  for (size_t i = 0; i < kVectors; ++i) {
    const __mmask64 mask = first_bytes(len - std::min(len, i * kVector));
    __m512i text = _mm512_maskz_loadu_epi8(mask, in + i * kVector);
    if (kSeal) {
      text = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(text, x[i]));
      _mm512_mask_storeu_epi8(out + i * kVector, mask, text);
    }
    multiply_add(sums, _mm512_xor_si512(reverse_each(text), carried),
                 _mm512_loadu_si512(power + i * kVector));
    carried = _mm512_setzero_si512();
  }
  return _mm512_castsi512_si128(x[kVectors]);
}

// gcm_seal, or the tag alone.
template <bool kSeal>
E2_TARGET_VAES void gcm_vaes(const GcmKey& key, const uint8_t* nonce, const uint8_t* aad,
                             size_t aad_len, const uint8_t* in, uint8_t* out, size_t len,
                             uint8_t* tag) {
  const __m128i lengths =
      _mm_set_epi64x(static_cast<int64_t>(aad_len * 8), static_cast<int64_t>(len * 8));
  const Rounds rounds = load_rounds(key.aes());
  const __m128i first = load_nonce(nonce);
  __m512i counters = first_counters(first, 2);
  __m128i state = _mm_setzero_si128();
  Sums sums = {};
  // Short text and what comes before it are hashed at one go.
  constexpr size_t kShortAad = (GcmKey::kPowers - GcmKey::kStride - 1) * kAesBlock;
  const size_t rest = len % kStride;
  const auto rest_blocks = static_cast<int>((rest + kAesBlock - 1) / kAesBlock);
  if (rest == len && aad_len <= kShortAad) {
    const auto aad_blocks = static_cast<int>((aad_len + kAesBlock - 1) / kAesBlock);
    hash_text(sums, state, key.power(aad_blocks + rest_blocks + 1), aad, aad_len);
  } else {
    state = hash_all(key, state, aad, aad_len);
    const size_t whole = len - rest;
    if (kSeal && whole > 0) {
      state = seal_strides(key, rounds, counters, state, in, out, whole);
    } else {
      state = hash_all(key, state, in, whole);
    }
    in += whole;
    if (kSeal) out += whole;
  }
  const uint8_t* power = key.power(rest_blocks + 1);
  __m128i mask;
  if (rest > 3 * kVector) {
    mask = last_text<4, kSeal>(rounds, counters, first, sums, state, power, in, out, rest);
  } else if (rest > 2 * kVector) {
    mask = last_text<3, kSeal>(rounds, counters, first, sums, state, power, in, out, rest);
  } else if (rest > kVector) {
    mask = last_text<2, kSeal>(rounds, counters, first, sums, state, power, in, out, rest);
  } else if (rest > 0) {
    mask = last_text<1, kSeal>(rounds, counters, first, sums, state, power, in, out, rest);
  } else {
    mask = last_text<0, kSeal>(rounds, counters, first, sums, state, power, in, out, rest);
  }
  const __m128i last = rest > 0 ? lengths : _mm_xor_si128(lengths, state);
  multiply_add(
      sums, _mm512_zextsi128_si512(last),
      _mm512_zextsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(key.power(1)))));
  const __m512i digest = reverse_each(_mm512_zextsi128_si512(reduce(sums)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(tag),
                   _mm_xor_si128(_mm512_castsi512_si128(digest), mask));
}

E2_TARGET_VAES void tag_vaes(const GcmKey& key, const uint8_t* nonce, const uint8_t* aad,
                             size_t aad_len, const uint8_t* text, size_t len, uint8_t* tag) {
  gcm_vaes<false>(key, nonce, aad, aad_len, text, nullptr, len, tag);
}

}  // namespace

const AesKernels kAesVaes = {blocks_vaes, ctr_vaes, ghash_vaes, gcm_vaes<true>, tag_vaes};

}  // namespace e2

#endif
