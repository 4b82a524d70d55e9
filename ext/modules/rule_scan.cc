// SPDX-License-Identifier: BSD-3-Clause
#include "modules/rule_scan.h"

#include "host/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace e2 {
namespace {

using Scan = void (*)(const KeyBatch&, uint32_t, const ScanRules&, uint64_t*);

bool within(uint64_t word, uint64_t low, uint64_t high) {
  for (uint32_t shift = 0; shift < 64; shift += 16) {
    const auto part = static_cast<uint16_t>(word >> shift);
    if (part < static_cast<uint16_t>(low >> shift)) return false;
    if (part > static_cast<uint16_t>(high >> shift)) return false;
  }
  return true;
}

// One key at a time, from the last rule to the first.
void scan_portable(const KeyBatch& keys, uint32_t count, const ScanRules& rules, uint64_t* hits) {
  for (uint32_t i = 0; i < count; ++i) {
    hits[i] = kNoRule;
    for (uint32_t rule = rules.rules; rule > 0 && hits[i] == kNoRule; --rule) {
      const uint64_t* value = rules.values + (rule - 1) * rules.value_stride;
      const uint64_t* mask = rules.masks + (rule - 1) * rules.mask_stride;
      uint64_t differs = 0;
      for (uint32_t c = 0; c < rules.column_count; ++c) {
        const uint32_t column = rules.columns[c];
        differs |= (keys.words[column][i] & mask[column]) ^ value[column];
      }
      if (differs != 0) continue;
      if (rules.lows != nullptr &&
          !within(keys.words[rules.range_column][i], rules.lows[rule - 1], rules.highs[rule - 1])) {
        continue;
      }
      hits[i] = rule - 1;
    }
  }
}

#if defined(__x86_64__)

E2_TARGET_AVX2 void scan_avx2(const KeyBatch& keys, uint32_t count, const ScanRules& rules,
                              uint64_t* hits) {
  const __m256i zero = _mm256_setzero_si256();
  for (uint32_t first = 0; first < count; first += 4) {
    __m256i hit = _mm256_set1_epi64x(-1);
    const uint64_t* value = rules.values;
    const uint64_t* mask = rules.masks;
    for (uint32_t rule = 0; rule < rules.rules; ++rule) {
      __m256i differs = zero;
      for (uint32_t c = 0; c < rules.column_count; ++c) {
        const uint32_t column = rules.columns[c];
        const __m256i key =
            _mm256_load_si256(reinterpret_cast<const __m256i*>(&keys.words[column][first]));
        const __m256i masked =
            _mm256_and_si256(key, _mm256_set1_epi64x(static_cast<int64_t>(mask[column])));
        const __m256i wanted = _mm256_set1_epi64x(static_cast<int64_t>(value[column]));
        differs = _mm256_or_si256(differs, _mm256_xor_si256(masked, wanted));
      }
      if (rules.lows != nullptr) {
        const __m256i key = _mm256_load_si256(
            reinterpret_cast<const __m256i*>(&keys.words[rules.range_column][first]));
        const __m256i low = _mm256_set1_epi64x(static_cast<int64_t>(rules.lows[rule]));
        const __m256i high = _mm256_set1_epi64x(static_cast<int64_t>(rules.highs[rule]));
        differs = _mm256_or_si256(differs, _mm256_subs_epu16(low, key));
        differs = _mm256_or_si256(differs, _mm256_subs_epu16(key, high));
      }
      const __m256i holds = _mm256_cmpeq_epi64(differs, zero);
      hit = _mm256_blendv_epi8(hit, _mm256_set1_epi64x(rule), holds);
      value += rules.value_stride;
      mask += rules.mask_stride;
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(hits + first), hit);
  }
}

// A rule's words are spread over vectors once for all keys, and only those that it tests.
template <uint32_t kGroups>
E2_TARGET_AVX512 void scan_groups(const KeyBatch& keys, const ScanRules& rules, uint64_t* hits) {
  __m512i hit[kGroups];
  for (uint32_t g = 0; g < kGroups; ++g) hit[g] = _mm512_set1_epi64(-1);
  const uint64_t* value = rules.values;
  const uint64_t* mask = rules.masks;
  for (uint32_t rule = 0; rule < rules.rules; ++rule) {
    __mmask8 holds[kGroups];
    for (uint32_t g = 0; g < kGroups; ++g) holds[g] = 0xff;
    for (uint32_t c = 0; c < rules.column_count; ++c) {
      const uint32_t column = rules.columns[c];
      if (mask[column] == 0) continue;
      const __m512i tested = _mm512_set1_epi64(static_cast<int64_t>(mask[column]));
      const __m512i wanted = _mm512_set1_epi64(static_cast<int64_t>(value[column]));
      for (uint32_t g = 0; g < kGroups; ++g) {
        const __m512i key = _mm512_load_si512(&keys.words[column][size_t{8} * g]);
        const __m512i masked = _mm512_and_si512(key, tested);
        holds[g] = _mm512_mask_cmpeq_epi64_mask(holds[g], masked, wanted);
      }
    }
    if (rules.lows != nullptr) {
      const __m512i low = _mm512_set1_epi64(static_cast<int64_t>(rules.lows[rule]));
      const __m512i high = _mm512_set1_epi64(static_cast<int64_t>(rules.highs[rule]));
      for (uint32_t g = 0; g < kGroups; ++g) {
        const __m512i key = _mm512_load_si512(&keys.words[rules.range_column][size_t{8} * g]);
        const __m512i outside =
            _mm512_or_si512(_mm512_subs_epu16(low, key), _mm512_subs_epu16(key, high));
        holds[g] = _mm512_mask_testn_epi64_mask(holds[g], outside, outside);
      }
    }
    const __m512i number = _mm512_set1_epi64(rule);
    for (uint32_t g = 0; g < kGroups; ++g) hit[g] = _mm512_mask_mov_epi64(hit[g], holds[g], number);
    value += rules.value_stride;
    mask += rules.mask_stride;
  }
  for (uint32_t g = 0; g < kGroups; ++g) _mm512_storeu_si512(hits + size_t{8} * g, hit[g]);
}

E2_TARGET_AVX512 void scan_avx512(const KeyBatch& keys, uint32_t count, const ScanRules& rules,
                                  uint64_t* hits) {
  switch ((count + 7) / 8) {
    case 0:
      return;
    case 1:
      return scan_groups<1>(keys, rules, hits);
    case 2:
      return scan_groups<2>(keys, rules, hits);
    default:
      return scan_groups<kMaxBatch / 8>(keys, rules, hits);
  }
}

Scan best_scan() { return pick<Scan>(scan_portable, scan_avx2, scan_avx512); }

#else

Scan best_scan() { return scan_portable; }

#endif

}  // namespace

void rule_scan(const KeyBatch& keys, uint32_t count, const ScanRules& rules, uint64_t* hits) {
  static const Scan scan = best_scan();
  scan(keys, count, rules, hits);
}

}  // namespace e2
