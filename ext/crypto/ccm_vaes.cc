// SPDX-License-Identifier: BSD-3-Clause
// Four messages per vector; all 32 stay in registers from block to block.
#if defined(__x86_64__)

#include "crypto/aes_vaes.h"
#include "crypto/ccm.h"

namespace e2 {
namespace {

using namespace vaes;

constexpr size_t kLanes = kVector / kAesBlock;
constexpr int kFirstFlags = 0x40 | (kCcmTagBytes - 2) / 2 << 3;

// The last 4 bytes of each block.
constexpr __mmask16 kCounters = 0x8888;

E2_TARGET_VAES inline __m512i load_row(const uint8_t* row, size_t i) {
  return _mm512_load_si512(row + i * kVector);
}

template <size_t kVectors>
E2_TARGET_VAES inline void authenticate(const Rounds& rounds, const CcmBatch& batch, size_t blocks,
                                        __m512i* macs) {
  const __m512i flags = _mm512_maskz_set1_epi32(0x1111, kFirstFlags);
  for (size_t i = 0; i < kVectors; ++i) {
    macs[i] = _mm512_xor_si512(load_row(batch.heads, i), flags);
  }
  encrypt<kVectors>(rounds, macs);
  for (size_t i = 0; i < kVectors; ++i) {
    macs[i] = _mm512_xor_si512(macs[i], load_row(batch.aads, i));
  }
  encrypt<kVectors>(rounds, macs);
  for (size_t block = 0; block < blocks; ++block) {
    for (size_t i = 0; i < kVectors; ++i) {
      macs[i] = _mm512_xor_si512(macs[i], load_row(batch.text[block], i));
    }
    encrypt<kVectors>(rounds, macs);
  }
}

// Block `number` of the key streams. A head has the length where a counter block has the lowest
// byte of its number; the bytes around it are zero or the end of the nonce.
template <size_t kVectors>
E2_TARGET_VAES inline void make_stream(const Rounds& rounds, const CcmBatch& batch, size_t number,
                                       __m512i* stream) {
  const __m512i kept = _mm512_mask_set1_epi32(_mm512_set1_epi32(-1), kCounters, 0x00ffffff);
  const __m512i counter =
      _mm512_maskz_set1_epi32(kCounters, static_cast<int>(static_cast<uint32_t>(number) << 24));
  for (size_t i = 0; i < kVectors; ++i) {
    // x & kept | counter
    stream[i] = _mm512_ternarylogic_epi64(load_row(batch.heads, i), kept, counter, 0xea);
  }
  encrypt<kVectors>(rounds, stream);
}

template <size_t kVectors>
E2_TARGET_VAES inline void apply_stream(const Rounds& rounds, CcmBatch& batch, size_t len) {
  for (size_t block = 0; block * kAesBlock < len; ++block) {
    __m512i stream[kVectors];
    make_stream<kVectors>(rounds, batch, block + 1, stream);
    const uint64_t used = len - block * kAesBlock;
    const uint64_t each = used >= kAesBlock ? 0xffff : (uint64_t{1} << used) - 1;
    const __mmask64 mask = each * 0x0001000100010001ULL;
    for (size_t i = 0; i < kVectors; ++i) {
      const __m512i text = load_row(batch.text[block], i);
      _mm512_store_si512(batch.text[block] + i * kVector,
                         _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(text, stream[i])));
    }
  }
}

// The first 8 bytes of each mac, masked.
template <size_t kVectors>
E2_TARGET_VAES inline void make_tags(const Rounds& rounds, const CcmBatch& batch,
                                     const __m512i* macs, uint8_t* tags) {
  __m512i masks[kVectors];
  make_stream<kVectors>(rounds, batch, 0, masks);
  const __m512i lower = _mm512_set_epi64(6, 6, 6, 6, 6, 4, 2, 0);
  for (size_t i = 0; i < kVectors; ++i) {
    const __m512i tag = _mm512_permutexvar_epi64(lower, _mm512_xor_si512(macs[i], masks[i]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(tags + i * kLanes * kCcmTagBytes),
                        _mm512_castsi512_si256(tag));
  }
}

template <size_t kVectors, bool kSeal>
E2_TARGET_VAES void run(const AesKey& key, CcmBatch& batch, size_t len, uint8_t* tags) {
  const Rounds rounds = load_rounds(key);
  const size_t blocks = (len + kAesBlock - 1) / kAesBlock;
  __m512i macs[kVectors];
  if (!kSeal) apply_stream<kVectors>(rounds, batch, len);
  authenticate<kVectors>(rounds, batch, blocks, macs);
  if (kSeal) apply_stream<kVectors>(rounds, batch, len);
  make_tags<kVectors>(rounds, batch, macs, tags);
}

// Lanes past the count are computed and mean nothing.
template <bool kSeal>
E2_TARGET_VAES void run_any(const AesKey& key, CcmBatch& batch, size_t count, size_t len,
                            uint8_t* tags) {
  if (count > 4 * kLanes) {
    run<8, kSeal>(key, batch, len, tags);
  } else if (count > kLanes) {
    run<4, kSeal>(key, batch, len, tags);
  } else {
    run<1, kSeal>(key, batch, len, tags);
  }
}

E2_TARGET_VAES void seal_vaes(const AesKey& key, CcmBatch& batch, size_t count, size_t len) {
  run_any<true>(key, batch, count, len, batch.tags);
}

E2_TARGET_VAES void open_vaes(const AesKey& key, CcmBatch& batch, size_t count, size_t len,
                              uint64_t* tags) {
  run_any<false>(key, batch, count, len, reinterpret_cast<uint8_t*>(tags));
}

}  // namespace

const CcmKernels kCcmVaes = {seal_vaes, open_vaes};

}  // namespace e2

#endif
