// SPDX-License-Identifier: BSD-3-Clause
#include "modules/rule_probe.h"

#include "host/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace e2 {
namespace {

using Probe = uint32_t (*)(const KeyBatch&, uint32_t, const int64_t*, const ProbeTable&, uint32_t*);

uint32_t probe_portable(const KeyBatch& keys, uint32_t count, const int64_t* reached,
                        const ProbeTable& table, uint32_t* rows) {
  uint32_t candidates = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (reached[i] > table.best) continue;
    uint64_t sum = 0;
    for (uint32_t w = 0; w < table.word_count; ++w) {
      const ProbeWord& word = table.words[w];
      sum += probe_sum(keys.words[word.column][i] & word.mask, word.column);
    }
    const uint64_t hash = probe_hash(sum);
    const uint64_t slot = table.slots[probe_slot(hash, table.last)];
    rows[i] = static_cast<uint32_t>(slot >> 32);
    const bool candidate = (slot & probe_signature(hash)) != 0;
    candidates |= static_cast<uint32_t>(candidate) << i;
  }
  return candidates;
}

#if defined(__x86_64__)

E2_TARGET_AVX2 uint32_t probe_avx2(const KeyBatch& keys, uint32_t count, const int64_t* reached,
                                   const ProbeTable& table, uint32_t* rows) {
  const __m256i best = _mm256_set1_epi64x(table.best);
  const __m256i last = _mm256_set1_epi64x(static_cast<int64_t>(table.last));
  const __m256i finish = _mm256_set1_epi64x(kProbeFinish);
  const __m256i one = _mm256_set1_epi64x(1);
  const __m256i signatures = _mm256_set1_epi64x(kSignatures - 1);
  const auto* slots =
      reinterpret_cast<const long long*>(table.slots);  // NOLINT(google-runtime-int)
  uint32_t candidates = 0;
  for (uint32_t first = 0; first < count; first += 4) {
    const __m256i reach = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(reached + first));
    const __m256i done = _mm256_cmpgt_epi64(reach, best);
    if (_mm256_movemask_pd(_mm256_castsi256_pd(done)) == 0xf) continue;
    __m256i sum = _mm256_setzero_si256();
    for (uint32_t w = 0; w < table.word_count; ++w) {
      const ProbeWord& word = table.words[w];
      const auto* at = reinterpret_cast<const __m256i*>(&keys.words[word.column][first]);
      const __m256i mask = _mm256_set1_epi64x(static_cast<int64_t>(word.mask));
      const __m256i masked = _mm256_and_si256(_mm256_load_si256(at), mask);
      const __m256i low = _mm256_set1_epi64x(kProbeFactors.low[word.column]);
      const __m256i high = _mm256_set1_epi64x(kProbeFactors.high[word.column]);
      sum = _mm256_add_epi64(sum, _mm256_mul_epu32(masked, low));
      sum = _mm256_add_epi64(sum, _mm256_mul_epu32(_mm256_srli_epi64(masked, 32), high));
    }
    const __m256i folded = _mm256_xor_si256(sum, _mm256_srli_epi64(sum, 32));
    const __m256i hash = _mm256_mul_epu32(folded, finish);
    const __m256i index = _mm256_and_si256(_mm256_srli_epi64(hash, 32), last);
    const __m256i slot = _mm256_i64gather_epi64(slots, index, 8);
    const __m256i shift = _mm256_and_si256(_mm256_srli_epi64(hash, 27), signatures);
    const __m256i bit = _mm256_andnot_si256(done, _mm256_sllv_epi64(one, shift));
    const __m256i hit = _mm256_cmpeq_epi64(_mm256_and_si256(slot, bit), _mm256_setzero_si256());
    const auto misses = static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(hit)));
    const __m256i order = _mm256_setr_epi32(1, 3, 5, 7, 1, 3, 5, 7);
    const __m256i upper = _mm256_permutevar8x32_epi32(slot, order);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(rows + first), _mm256_castsi256_si128(upper));
    candidates |= (misses ^ 0xf) << first;
  }
  return candidates & mask_of(count);
}

E2_TARGET_AVX512 uint32_t probe_avx512(const KeyBatch& keys, uint32_t count, const int64_t* reached,
                                       const ProbeTable& table, uint32_t* rows) {
  const __m512i best = _mm512_set1_epi64(table.best);
  const __m512i last = _mm512_set1_epi64(static_cast<int64_t>(table.last));
  const __m512i finish = _mm512_set1_epi64(kProbeFinish);
  const __m512i one = _mm512_set1_epi64(1);
  const __m512i signatures = _mm512_set1_epi64(kSignatures - 1);
  uint32_t candidates = 0;
  for (uint32_t first = 0; first < count; first += 8) {
    const __mmask8 open = _mm512_cmple_epi64_mask(_mm512_loadu_si512(reached + first), best);
    if (open == 0) continue;
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t w = 0; w < table.word_count; ++w) {
      const ProbeWord& word = table.words[w];
      const __m512i key = _mm512_load_si512(&keys.words[word.column][first]);
      const __m512i masked =
          _mm512_and_si512(key, _mm512_set1_epi64(static_cast<int64_t>(word.mask)));
      const __m512i low = _mm512_set1_epi64(kProbeFactors.low[word.column]);
      const __m512i high = _mm512_set1_epi64(kProbeFactors.high[word.column]);
      sum = _mm512_add_epi64(sum, _mm512_mul_epu32(masked, low));
      sum = _mm512_add_epi64(sum, _mm512_mul_epu32(_mm512_srli_epi64(masked, 32), high));
    }
    const __m512i folded = _mm512_xor_si512(sum, _mm512_srli_epi64(sum, 32));
    const __m512i hash = _mm512_mul_epu32(folded, finish);
    const __m512i index = _mm512_and_si512(_mm512_srli_epi64(hash, 32), last);
    const __m512i slot =
        _mm512_mask_i64gather_epi64(_mm512_setzero_si512(), open, index, table.slots, 8);
    const __m512i shift = _mm512_and_si512(_mm512_srli_epi64(hash, 27), signatures);
    const __mmask8 hit = _mm512_mask_test_epi64_mask(open, slot, _mm512_sllv_epi64(one, shift));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows + first),
                        _mm512_cvtepi64_epi32(_mm512_srli_epi64(slot, 32)));
    candidates |= static_cast<uint32_t>(hit) << first;
  }
  return candidates & mask_of(count);
}

Probe best_probe() { return pick<Probe>(probe_portable, probe_avx2, probe_avx512); }

#else

Probe best_probe() { return probe_portable; }

#endif

}  // namespace

uint32_t rule_probe(const KeyBatch& keys, uint32_t count, const int64_t* reached,
                    const ProbeTable& table, uint32_t* rows) {
  static const Probe probe = best_probe();
  return probe(keys, count, reached, table, rows);
}

}  // namespace e2
