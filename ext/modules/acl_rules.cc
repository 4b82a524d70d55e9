// SPDX-License-Identifier: BSD-3-Clause
#include "modules/acl_rules.h"

#include <algorithm>

#include "host/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace e2 {
namespace {

using View = AclRules::View;
using Scan = AclVerdict (*)(const AclKeys&, PacketMask, const View&);

// Takes the packets that a rule holds for out of `left`.
inline void decide(const View& rules, uint32_t rule, PacketMask hit, PacketMask& left,
                   AclVerdict& verdict) {
  (rules.drops[rule] != 0 ? verdict.dropped : verdict.passed) |= hit;
  left &= ~hit;
}

// One packet at a time.
AclVerdict scan_portable(const AclKeys& keys, PacketMask packets, const View& rules) {
  AclVerdict verdict;
  while (packets != 0) {
    const auto i = static_cast<uint32_t>(__builtin_ctz(packets));
    const PacketMask bit = packets & -packets;
    const uint32_t* words = rules.words;
    for (uint32_t rule = 0; rule < rules.rules && (packets & bit) != 0; ++rule) {
      uint32_t differs = 0;
      for (size_t c = 0; c < rules.column_count; ++c) {
        differs |= (keys.words[rules.columns[c]][i] & words[2 * c + 1]) ^ words[2 * c];
      }
      if (differs == 0) decide(rules, rule, bit, packets, verdict);
      words += size_t{2} * rules.column_count;
    }
    packets &= ~bit;
  }
  return verdict;
}

#if defined(__x86_64__)

// Vectors of 8 packets. The columns of the key come from memory: there are not enough registers.
E2_TARGET_AVX2 AclVerdict scan_avx2(const AclKeys& keys, PacketMask packets, const View& rules) {
  constexpr uint32_t kLanes = 8;
  constexpr uint32_t kParts = kMaxBatch / kLanes;
  const __m256i zero = _mm256_setzero_si256();
  AclVerdict verdict;
  const uint32_t* words = rules.words;
  for (uint32_t rule = 0; rule < rules.rules && packets != 0; ++rule) {
    __m256i differs[kParts] = {zero, zero, zero, zero};
    for (size_t c = 0; c < rules.column_count; ++c) {
      const __m256i value = _mm256_set1_epi32(static_cast<int>(words[2 * c]));
      const __m256i mask = _mm256_set1_epi32(static_cast<int>(words[2 * c + 1]));
      const uint32_t* column = keys.words[rules.columns[c]];
      for (size_t part = 0; part < kParts; ++part) {
        const __m256i key =
            _mm256_load_si256(reinterpret_cast<const __m256i*>(column + part * kLanes));
        const __m256i differ = _mm256_xor_si256(_mm256_and_si256(key, mask), value);
        differs[part] = _mm256_or_si256(differs[part], differ);
      }
    }
    PacketMask hit = 0;
    for (uint32_t part = 0; part < kParts; ++part) {
      const __m256 same = _mm256_castsi256_ps(_mm256_cmpeq_epi32(differs[part], zero));
      hit |= static_cast<PacketMask>(_mm256_movemask_ps(same)) << (part * kLanes);
    }
    hit &= packets;
    if (hit != 0) decide(rules, rule, hit, packets, verdict);
    words += size_t{2} * rules.column_count;
  }
  return verdict;
}

// Two vectors of 16 packets. kColumns, where it is not 0, is the number of columns, which then
// stay in registers.
template <uint32_t kColumns>
E2_TARGET_AVX512 AclVerdict scan_avx512(const AclKeys& keys, PacketMask packets,
                                        const View& rules) {
  constexpr uint32_t kLanes = 16;
  constexpr int kDiffers = 0x78;  // value ^ (key & mask)
  constexpr uint32_t kHeld = kColumns == 0 ? AclKeys::kColumns : kColumns;
  const uint32_t count = kColumns == 0 ? rules.column_count : kColumns;
  __m512i low[kHeld];
  __m512i high[kHeld];
  for (size_t c = 0; c < count; ++c) {
    low[c] = _mm512_load_si512(keys.words[rules.columns[c]]);
    high[c] = _mm512_load_si512(keys.words[rules.columns[c]] + kLanes);
  }
  // Undecided packets; rules that hold for none of them, which is most, cost no move between
  // register files.
  auto low_left = static_cast<__mmask16>(packets);
  auto high_left = static_cast<__mmask16>(packets >> kLanes);
  AclVerdict verdict;
  const uint32_t* words = rules.words;
  for (uint32_t rule = 0; rule < rules.rules; ++rule, words += size_t{2} * count) {
    __m512i low_differs = _mm512_setzero_si512();
    __m512i high_differs = low_differs;
    for (size_t c = 0; c < count; ++c) {
      const __m512i value = _mm512_set1_epi32(static_cast<int>(words[2 * c]));
      const __m512i mask = _mm512_set1_epi32(static_cast<int>(words[2 * c + 1]));
      const __m512i low_differ = _mm512_ternarylogic_epi32(value, low[c], mask, kDiffers);
      const __m512i high_differ = _mm512_ternarylogic_epi32(value, high[c], mask, kDiffers);
      low_differs = c == 0 ? low_differ : _mm512_or_si512(low_differs, low_differ);
      high_differs = c == 0 ? high_differ : _mm512_or_si512(high_differs, high_differ);
    }
    const __mmask16 low_hit = _mm512_mask_testn_epi32_mask(low_left, low_differs, low_differs);
    const __mmask16 high_hit = _mm512_mask_testn_epi32_mask(high_left, high_differs, high_differs);
    if (_kortestz_mask16_u8(low_hit, high_hit) != 0) continue;
    const PacketMask hit = low_hit | static_cast<PacketMask>(high_hit) << kLanes;
    decide(rules, rule, hit, packets, verdict);
    if (packets == 0) break;
    low_left = static_cast<__mmask16>(packets);
    high_left = static_cast<__mmask16>(packets >> kLanes);
  }
  return verdict;
}

E2_TARGET_AVX512 AclVerdict scan_any_avx512(const AclKeys& keys, PacketMask packets,
                                            const View& rules) {
  switch (rules.column_count) {
    case 1:
      return scan_avx512<1>(keys, packets, rules);
    case 2:
      return scan_avx512<2>(keys, packets, rules);
    case 3:
      return scan_avx512<3>(keys, packets, rules);
    default:
      return scan_avx512<0>(keys, packets, rules);
  }
}

Scan best_scan() { return pick<Scan>(scan_portable, scan_avx2, scan_any_avx512); }

#else

Scan best_scan() { return scan_portable; }

#endif

}  // namespace

void AclRules::assign(const std::vector<AclRule>& rules) {
  words_.clear();
  drops_.clear();
  columns_.clear();
  for (uint32_t c = 0; c < AclKeys::kColumns; ++c) {
    const auto tests = [c](const AclRule& rule) { return rule.mask[c] != 0; };
    if (std::any_of(rules.begin(), rules.end(), tests)) {
      columns_.push_back(static_cast<uint8_t>(c));
    }
  }
  for (const AclRule& rule : rules) {
    for (const uint8_t c : columns_) {
      words_.push_back(rule.value[c]);
      words_.push_back(rule.mask[c]);
    }
    drops_.push_back(rule.drop ? 1 : 0);
  }
}

AclVerdict AclRules::scan(const AclKeys& keys, PacketMask packets) const {
  static const Scan scan = best_scan();
  return scan(keys, packets,
              {words_.data(), drops_.data(), static_cast<uint32_t>(drops_.size()), columns_.data(),
               static_cast<uint32_t>(columns_.size())});
}

}  // namespace e2
