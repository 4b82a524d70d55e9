// SPDX-License-Identifier: BSD-3-Clause
// rule_scan: a batch of keys against a few ternary rules, all of them, with vector compares.
//
// Where rules are few this beats any index: one rule costs a full batch two operations per key word
// and 8 keys, without a branch or a dependent load.
#pragma once

#include <cstddef>
#include <cstdint>

#include "modules/field_key.h"

namespace e2 {

// Rules beyond this are better looked up than scanned.
constexpr uint32_t kMaxScanRules = 16;
constexpr uint64_t kNoRule = ~0ULL;

// Rule r holds for a key where, for each of the columns, (key & masks[r]) == values[r] and, if
// there are ranges, each 16 bits of the key's word `range_column` are within those of lows[r],
// highs[r]. What a mask lacks, its value lacks, too.
struct ScanRules {
  const uint64_t* values = nullptr;
  size_t value_stride = 0;  // words from rule to rule
  const uint64_t* masks = nullptr;
  size_t mask_stride = 0;            // 0: all rules share one mask
  const uint8_t* columns = nullptr;  // which words of a key count
  uint32_t column_count = 0;
  uint32_t rules = 0;
  const uint64_t* lows = nullptr;  // nullptr: no ranges
  const uint64_t* highs = nullptr;
  uint32_t range_column = 0;
};

// hits[i] becomes the last rule that holds for key i, or kNoRule. hits has kMaxBatch entries.
void rule_scan(const KeyBatch& keys, uint32_t count, const ScanRules& rules, uint64_t* hits);

}  // namespace e2
