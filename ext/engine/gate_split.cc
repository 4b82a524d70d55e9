// SPDX-License-Identifier: BSD-3-Clause
#include "engine/gate_split.h"

#include "host/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace e2 {
namespace {

PacketMask match_portable(const Gate* gates, Gate gate) {
  PacketMask mask = 0;
  for (uint32_t i = 0; i < kMaxBatch; ++i) {
    mask |= static_cast<PacketMask>(gates[i] == gate) << i;
  }
  return mask;
}

void take_portable(const Batch& from, PacketMask mask, Batch& to) {
  uint32_t size = 0;
  for (; mask != 0; mask &= mask - 1) to.packets[size++] = from[__builtin_ctz(mask)];
  to.size = size;
}

#if defined(__x86_64__)

E2_TARGET_AVX2 PacketMask match_avx2(const Gate* gates, Gate gate) {
  const __m256i wanted = _mm256_set1_epi16(static_cast<int16_t>(gate));
  const auto* halves = reinterpret_cast<const __m256i*>(gates);
  const __m256i low = _mm256_cmpeq_epi16(_mm256_loadu_si256(halves), wanted);
  const __m256i high = _mm256_cmpeq_epi16(_mm256_loadu_si256(halves + 1), wanted);
  // Packing works within 128-bit lanes: the middle quarters change places.
  const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8);
  return static_cast<PacketMask>(_mm256_movemask_epi8(bytes));
}

E2_TARGET_AVX512 PacketMask match_avx512(const Gate* gates, Gate gate) {
  return _mm512_cmpeq_epi16_mask(_mm512_loadu_si512(gates),
                                 _mm512_set1_epi16(static_cast<int16_t>(gate)));
}

E2_TARGET_AVX512 void take_avx512(const Batch& from, PacketMask mask, Batch& to) {
  uint32_t size = 0;
  for (uint32_t first = 0; first < kMaxBatch; first += 8) {
    const auto part = static_cast<__mmask8>(mask >> first);
    // Never past the end of `to`: 8 packets were looked at for each 8 slots.
    const __m512i kept =
        _mm512_maskz_compress_epi64(part, _mm512_loadu_si512(from.packets + first));
    _mm512_storeu_si512(to.packets + size, kept);
    size += static_cast<uint32_t>(__builtin_popcount(part));
  }
  to.size = size;
}

constexpr GateSplit kAvx2 = {match_avx2, take_portable};
constexpr GateSplit kAvx512 = {match_avx512, take_avx512};

#endif

constexpr GateSplit kPortable = {match_portable, take_portable};

const GateSplit& choose() {
#if defined(__x86_64__)
  return *pick<const GateSplit*>(&kPortable, &kAvx2, &kAvx512);
#else
  return kPortable;
#endif
}

}  // namespace

const GateSplit& gate_split() {
  static const GateSplit& chosen = choose();
  return chosen;
}

}  // namespace e2
