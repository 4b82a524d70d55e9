// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/interval_kernels.h"

#include <cstring>

#include "host/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace e2 {
namespace {

// Halves a stretch of ascending numbers until at most `window` may hold the first one that isn't
// smaller than the value. Which half doesn't steer a branch, which could only be guessed.
template <typename T>
const T* narrow_down(const T* numbers, uint32_t& count, uint32_t window, T value) {
  while (count > window) {
    const uint32_t half = count / 2;
    numbers += static_cast<size_t>(numbers[half - 1] < value) * half;
    count -= half;
  }
  return numbers;
}

const uint32_t* ipv4_prefixes(const uint32_t* list, uint32_t listed) {
  return list + (listed + 2) / 2;
}

void find_ipv4_portable(const Ipv4Table& table, const uint32_t* values, uint32_t count,
                        Cell* prefixes) {
  const Cell* cells = table.cells();
  const uint32_t* lists = table.lists();
  for (uint32_t i = 0; i < count; ++i) prefixes[i] = cells[values[i] >> 16];
  for (uint32_t i = 0; i < count; ++i) {
    if ((prefixes[i] & kReference) == 0) continue;
    const uint32_t* list = lists + (prefixes[i] >> 1);
    const auto* ends = reinterpret_cast<const uint16_t*>(list);
    const uint32_t listed = *ends++;
    const auto value = static_cast<uint16_t>(values[i]);
    uint32_t left = listed;
    const uint16_t* at = narrow_down<uint16_t>(ends, left, 1, value);
    prefixes[i] = ipv4_prefixes(list, listed)[at - ends + (*at < value)];
  }
}

// A batch goes through the search in step, so that its loads don't wait for each other.
void rank_portable(const SearchTree& tree, const uint64_t* values, uint32_t count,
                   uint32_t* ranks) {
  const uint64_t* keys = tree.level(0);
  for (uint32_t i = 0; i < count; ++i) ranks[i] = 0;
  uint32_t left = tree.count();
  while (left > 1) {
    const uint32_t half = left / 2;
    for (uint32_t i = 0; i < count; ++i) {
      ranks[i] += static_cast<uint32_t>(keys[ranks[i] + half - 1] < values[i]) * half;
    }
    left -= half;
  }
  for (uint32_t i = 0; i < count; ++i) ranks[i] += keys[ranks[i]] < values[i];
}

uint32_t rank_listed_portable(const uint32_t* numbers, uint32_t listed, uint64_t value) {
  uint32_t rank = 0;
  for (uint32_t i = 0; i < listed; ++i) {
    uint64_t number;  // only aligned to 4 bytes
    std::memcpy(&number, numbers + static_cast<size_t>(2) * i, sizeof number);
    rank += number < value;
  }
  return rank;
}

void find_wide_portable(const WideTable& table, const uint64_t* high, const uint64_t* low,
                        uint32_t count, Cell* prefixes) {
  uint32_t ranks[kMaxLookups];
  rank_portable(table.tree(), high, count, ranks);
  const uint64_t* keys = table.tree().level(0);
  for (uint32_t i = 0; i < count; ++i) {
    prefixes[i] = table.cells()[ranks[i]];
    if ((prefixes[i] & kReference) == 0) continue;
    const uint32_t* list = table.lists() + (prefixes[i] >> 1);
    const uint32_t listed = *list & ~WideTable::kTreeList;
    const uint32_t* rest = list + listed + 2;
    uint32_t rank = 0;  // before all of them, where the upper half isn't that of the ends
    if (keys[ranks[i]] == high[i]) {
      if (listed > WideTable::kMaxListed) {
        rank_portable(table.list_tree(*rest), low + i, 1, &rank);
      } else {
        rank = rank_listed_portable(rest, listed, low[i]);
      }
    }
    prefixes[i] = list[1 + rank];
  }
}

constexpr IntervalKernels kPortable = {find_ipv4_portable, find_wide_portable};

#if defined(__x86_64__)

E2_TARGET_AVX512 void find_ipv4_avx512(const Ipv4Table& table, const uint32_t* values,
                                       uint32_t count, Cell* prefixes) {
  constexpr uint32_t kVector = 16;
  const Cell* cells = table.cells();
  const uint32_t* lists = table.lists();
  uint32_t open[kMaxLookups];  // values whose cell is a reference
  uint32_t open_count = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const Cell cell = cells[values[i] >> 16];
    prefixes[i] = cell;
    open[open_count] = i;
    open_count += cell & kReference;
    // All lists are on their way before the first one is needed. What is no reference fetches the
    // first list again: no branch.
    __builtin_prefetch(lists + ((cell >> 1) & -(cell & kReference)));
  }
  for (uint32_t i = 0; i < open_count; ++i) {
    const uint32_t lane = open[i];
    const uint32_t* list = lists + (prefixes[lane] >> 1);
    const auto* ends = reinterpret_cast<const uint16_t*>(list);
    const uint32_t listed = *ends;
    const auto value = static_cast<uint16_t>(values[lane]);
    uint32_t skipped = 0;
    uint32_t in_vector = listed + 1;  // with the count in front, which doesn't count
    uint32_t uncounted = 1;
    if (listed >= kVector) {
      in_vector = listed;
      const uint16_t* at = narrow_down<uint16_t>(ends + 1, in_vector, kVector, value);
      skipped = static_cast<uint32_t>(at - ends - 1);
      ends = at;
      uncounted = 0;
    }
    const __mmask16 smaller =
        _mm256_cmplt_epu16_mask(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(ends)),
                                _mm256_set1_epi16(static_cast<int16_t>(value)));
    const uint32_t kept = _bzhi_u32(smaller & ~uncounted, in_vector);
    prefixes[lane] =
        ipv4_prefixes(list, listed)[skipped + static_cast<uint32_t>(__builtin_popcount(kept))];
  }
}

E2_TARGET_AVX512 inline uint32_t smaller_in_node(const uint64_t* node, uint64_t value) {
  const __mmask8 smaller = _mm512_cmplt_epu64_mask(_mm512_loadu_si512(node),
                                                   _mm512_set1_epi64(static_cast<int64_t>(value)));
  return static_cast<uint32_t>(__builtin_popcount(smaller));
}

E2_TARGET_AVX512 [[gnu::always_inline]] inline void rank_avx512(const SearchTree& tree,
                                                                const uint64_t* values,
                                                                uint32_t count, uint32_t* ranks) {
  constexpr uint32_t kChildren = SearchTree::kNode + 1;
  uint32_t level = tree.levels() - 1;
  const uint64_t* nodes = tree.level(level);
  for (uint32_t i = 0; i < count; ++i) ranks[i] = smaller_in_node(nodes, values[i]);
  while (level > 0) {
    nodes = tree.level(--level);
    const uint32_t step = level > 0 ? kChildren : SearchTree::kNode;
#pragma GCC unroll 8
    for (uint32_t i = 0; i < count; ++i) {
      const size_t node = ranks[i];
      ranks[i] = static_cast<uint32_t>(node) * step +
                 smaller_in_node(nodes + node * SearchTree::kNode, values[i]);
    }
  }
}

E2_TARGET_AVX512 inline uint32_t rank_listed_avx512(const uint32_t* numbers, uint32_t listed,
                                                    uint64_t value) {
  uint32_t rank = 0;
  const __m512i wanted = _mm512_set1_epi64(static_cast<int64_t>(value));
  for (uint32_t first = 0; first < listed; first += SearchTree::kNode) {
    const auto mask = static_cast<__mmask8>(_bzhi_u32(0xff, listed - first));
    const __m512i part = _mm512_maskz_loadu_epi64(mask, numbers + static_cast<size_t>(2) * first);
    rank +=
        static_cast<uint32_t>(__builtin_popcount(_mm512_mask_cmplt_epu64_mask(mask, part, wanted)));
  }
  return rank;
}

// The values at `open`, whose lists are trees: those with the same one go through it together.
E2_TARGET_AVX512 void find_in_trees(const WideTable& table, const uint64_t* low, uint32_t* open,
                                    uint32_t open_count, Cell* prefixes) {
  while (open_count > 0) {
    const Cell cell = prefixes[open[0]];
    const uint32_t* list = table.lists() + (cell >> 1);
    const SearchTree& tree = table.list_tree(list[(*list & ~WideTable::kTreeList) + 2]);
    uint64_t values[kMaxLookups];
    uint32_t places[kMaxLookups];
    uint32_t ranks[kMaxLookups];
    uint32_t count = 0;
    uint32_t others = 0;
    for (uint32_t i = 0; i < open_count; ++i) {
      const uint32_t at = open[i];
      if (prefixes[at] == cell) {
        values[count] = low[at];
        places[count++] = at;
      } else {
        open[others++] = at;
      }
    }
    rank_avx512(tree, values, count, ranks);
    for (uint32_t i = 0; i < count; ++i) prefixes[places[i]] = list[1 + ranks[i]];
    open_count = others;
  }
}

E2_TARGET_AVX512 void find_wide_avx512(const WideTable& table, const uint64_t* high,
                                       const uint64_t* low, uint32_t count, Cell* prefixes) {
  uint32_t ranks[kMaxLookups];
  if (count == kMaxLookups) {
    rank_avx512(table.tree(), high, kMaxLookups, ranks);
  } else {
    rank_avx512(table.tree(), high, count, ranks);
  }
  const Cell* cells = table.cells();
  const uint64_t* keys = table.tree().level(0);
  uint32_t open[kMaxLookups];
  uint32_t open_count = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const Cell cell = cells[ranks[i]];
    prefixes[i] = cell;
    open[open_count] = i;
    open_count += cell & kReference;
  }
  uint32_t deep_count = 0;
  uint64_t lows[kMaxLookups];
  for (uint32_t i = 0; i < open_count; ++i) {
    const uint32_t at = open[i];
    const uint32_t* list = table.lists() + (prefixes[at] >> 1);
    const uint32_t listed = *list;
    // Before all of them, where the upper half isn't that of the ends: no branch, 0 does it.
    const uint64_t same = keys[ranks[at]] == high[at];
    lows[at] = low[at] & -same;
    if (listed > WideTable::kMaxListed) {
      open[deep_count++] = at;
    } else {
      prefixes[at] = list[1 + rank_listed_avx512(list + listed + 2, listed, lows[at])];
    }
  }
  if (deep_count > 0) find_in_trees(table, lows, open, deep_count, prefixes);
}

constexpr IntervalKernels kAvx512 = {find_ipv4_avx512, find_wide_avx512};

#endif

const IntervalKernels& choose() {
#if defined(__x86_64__)
  return *pick<const IntervalKernels*>(&kPortable, &kPortable, &kAvx512);
#else
  return kPortable;
#endif
}

}  // namespace

const IntervalKernels& interval_kernels() {
  static const IntervalKernels& chosen = choose();
  return chosen;
}

}  // namespace e2
