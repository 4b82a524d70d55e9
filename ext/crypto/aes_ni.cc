// SPDX-License-Identifier: BSD-3-Clause
// AES-NI and PCLMULQDQ: 8 blocks in flight.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "crypto/aes_kernels.h"
#include "host/headers.h"
#include "host/isa.h"

namespace e2 {
namespace {

constexpr size_t kGroup = 8;

E2_TARGET_AESNI inline __m128i load(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
E2_TARGET_AESNI inline void store(uint8_t* to, __m128i block) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), block);
}

template <size_t kBlocks>
E2_TARGET_AESNI inline void rounds(const AesKey& key, int first, int end, __m128i* x) {
  for (int round = first; round < end; ++round) {
    const __m128i k = load(key.round(round));
    for (size_t i = 0; i < kBlocks; ++i) x[i] = _mm_aesenc_si128(x[i], k);
  }
}

template <size_t kBlocks>
E2_TARGET_AESNI inline void encrypt(const AesKey& key, __m128i* x) {
  const __m128i first = load(key.round(0));
  for (size_t i = 0; i < kBlocks; ++i) x[i] = _mm_xor_si128(x[i], first);
  rounds<kBlocks>(key, 1, AesKey::kRounds, x);
  if (key.is_long()) rounds<kBlocks>(key, AesKey::kRounds, AesKey::kLongRounds, x);
  const __m128i last = load(key.round(key.rounds()));
  for (size_t i = 0; i < kBlocks; ++i) x[i] = _mm_aesenclast_si128(x[i], last);
}

E2_TARGET_AESNI void blocks_ni(const AesKey& key, const uint8_t* in, uint8_t* out, size_t blocks) {
  for (; blocks >= kGroup; blocks -= kGroup) {
    __m128i x[kGroup];
    for (size_t i = 0; i < kGroup; ++i) x[i] = load(in + i * kAesBlock);
    encrypt<kGroup>(key, x);
    for (size_t i = 0; i < kGroup; ++i) store(out + i * kAesBlock, x[i]);
    in += kGroup * kAesBlock;
    out += kGroup * kAesBlock;
  }
  for (; blocks > 0; --blocks) {
    __m128i x = load(in);
    encrypt<1>(key, &x);
    store(out, x);
    in += kAesBlock;
    out += kAesBlock;
  }
}

E2_TARGET_AESNI void ctr_ni(const AesKey& key, const uint8_t* nonce, uint32_t counter,
                            const uint8_t* in, uint8_t* out, size_t len) {
  // Put together in a register: a load right after two stores to its bytes would wait for both.
  const __m128i base =
      _mm_insert_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(nonce)),
                       static_cast<int>(__builtin_bswap32(load_be32(nonce + 8))), 2);
  while (len > 0) {
    __m128i x[kGroup];
    const size_t blocks = std::min(kGroup, (len + kAesBlock - 1) / kAesBlock);
    for (__m128i& block : x) {
      block = _mm_insert_epi32(base, static_cast<int>(__builtin_bswap32(counter)), 3);
      ++counter;
    }
    if (blocks > 4) {
      encrypt<kGroup>(key, x);
    } else {
      encrypt<4>(key, x);
    }
    if (len >= kGroup * kAesBlock) {
      for (size_t i = 0; i < kGroup; ++i) {
        store(out + i * kAesBlock, _mm_xor_si128(load(in + i * kAesBlock), x[i]));
      }
      in += kGroup * kAesBlock;
      out += kGroup * kAesBlock;
      len -= kGroup * kAesBlock;
      continue;
    }
    size_t i = 0;
    for (; len >= kAesBlock; ++i, len -= kAesBlock, in += kAesBlock, out += kAesBlock) {
      store(out, _mm_xor_si128(load(in), x[i]));
    }
    if (len > 0) {
      uint8_t stream[kAesBlock];
      store(stream, x[i]);
      for (size_t b = 0; b < len; ++b) out[b] = in[b] ^ stream[b];
    }
    return;
  }
}

E2_TARGET_AESNI inline __m128i swap_halves(__m128i x) { return _mm_shuffle_epi32(x, 0x4e); }

// A block of the hash, most significant byte first in memory.
E2_TARGET_AESNI inline __m128i load_reversed(const uint8_t* from) {
  const __m128i order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm_shuffle_epi8(load(from), order);
}

E2_TARGET_AESNI void ghash_ni(const GcmKey& key, uint8_t* state, const uint8_t* data,
                              size_t blocks) {
  const __m128i polynomial = _mm_set_epi64x(0, static_cast<int64_t>(0xc200000000000000U));
  __m128i sum = load(state);
  while (blocks > 0) {
    const size_t count = std::min<size_t>(blocks, GcmKey::kStride);
    const uint8_t* power = key.power(static_cast<int>(count));
    __m128i low = _mm_setzero_si128();
    __m128i high = low;
    __m128i middle = low;
    for (size_t i = 0; i < count; ++i) {
      const __m128i x = _mm_xor_si128(load_reversed(data), sum);
      const __m128i h = load(power);
      sum = _mm_setzero_si128();  // only into the first block
      low = _mm_xor_si128(low, _mm_clmulepi64_si128(x, h, 0x00));
      high = _mm_xor_si128(high, _mm_clmulepi64_si128(x, h, 0x11));
      const __m128i crossed =
          _mm_xor_si128(_mm_clmulepi64_si128(x, h, 0x01), _mm_clmulepi64_si128(x, h, 0x10));
      middle = _mm_xor_si128(middle, crossed);
      data += kAesBlock;
      power += kAesBlock;
    }
    low = _mm_xor_si128(low, _mm_slli_si128(middle, 8));
    high = _mm_xor_si128(high, _mm_srli_si128(middle, 8));
    for (int i = 0; i < 2; ++i) {
      low = _mm_xor_si128(swap_halves(low), _mm_clmulepi64_si128(low, polynomial, 0x00));
    }
    sum = _mm_xor_si128(low, high);
    blocks -= count;
  }
  store(state, sum);
}

}  // namespace

const AesKernels kAesNi = {blocks_ni, ctr_ni, ghash_ni, nullptr, nullptr};

}  // namespace e2

#endif
