// SPDX-License-Identifier: BSD-3-Clause
// RuleIndex: ternary rules with ranges over keys, the best of which is found in few hash tables.
//
// A few rules are all compared (rule_scan.h). Of more, those share a hash table that all test some
// bits, its mask, and of which few agree in these bits: rules of many different masks need but a
// handful of tables. build() picks one mask after another, each by climbing from no bits at all
// to more of one field at a time while the table would take in more rules, of which at most kChain
// may agree; then to more bits, for which some rules are left to other tables where that shortens
// chains enough. Rules that agree form a chain, the best first.
//
// A lookup hashes the batch for one table after another with vector instructions (rule_probe.h),
// those of the most rules first, and leaves out keys that a table has nothing better for. Only
// where a slot has rules of the key's signature are they compared, one by one, until one holds or
// can't win any more. The highest priority wins, and the older rule among equals.
//
// Cost of a lookup: O(tables + chain) for a key of given size; tables and chains grow with how many
// rules overlap, and hardly with how many there are. In the worst case, where no bits tell rules
// apart, all of them are compared. build(): O(rules * tables * fields). insert(), erase(): O(tables
// + chain); they keep the masks, so that whoever changes much builds anew (stale()).
//
// Lookups neither allocate nor lock; changes run beside them in a Live<> (host/live_table.h) only.
#pragma once

#include <vector>

#include "modules/rule_probe.h"
#include "modules/rule_scan.h"

namespace e2 {

// Ranges are over the first 16-bit parts of one word of the key.
constexpr uint32_t kRangeParts = 3;

struct IndexRule {
  MatchKey value;  // 0 wherever the mask is
  MatchKey mask;
  uint16_t low[kRangeParts] = {0, 0, 0};
  uint16_t high[kRangeParts] = {0xffff, 0xffff, 0xffff};
  int64_t priority = 0;
  uint32_t age = 0;  // unique
  Gate gate = 0;
};

class RuleIndex {
 public:
  // Some bits of one word, which masks take in or leave together.
  struct Part {
    uint32_t column;
    uint64_t bits;
  };

  RuleIndex() = default;
  // Keys have that many words; ranges are over word `range_column`.
  RuleIndex(uint32_t words, uint32_t range_column, std::vector<Part> parts);

  // Replaces all rules. Rule i keeps the number i; nullptr is none.
  void build(const std::vector<const IndexRule*>& rules);
  // Adds rule `number`, which is a free number or the next one.
  void insert(uint32_t number, const IndexRule& rule);
  void erase(uint32_t number);
  // Whether build() would now make better tables.
  bool stale() const;

  // The gate of each key's best rule, or `fallback`. Columns are padded. `gates` has kMaxBatch
  // entries.
  void find_batch(const KeyBatch& keys, uint32_t count, Gate fallback, Gate* gates) const;

  size_t size() const { return size_; }
  // How many tables a lookup may have to visit; 0 where all rules are compared.
  size_t tables() const { return size_ <= kMaxScanRules ? 0 : tables_.size(); }

 private:
  static constexpr uint32_t kChain = 8;
  static constexpr uint32_t kNone = UINT32_MAX;

  // The first words of a row; the value and the mask of each word of the key follow.
  struct Head {
    int64_t priority;
    uint32_t age;
    uint32_t next;  // in the chain
    uint16_t low[kRangeParts];
    Gate gate;
    uint16_t high[kRangeParts];
    uint16_t used;
  };
  static constexpr uint32_t kHeadWords = sizeof(Head) / sizeof(uint64_t);
  struct alignas(kCacheLineBytes) Line {
    uint64_t words[kCacheLineBytes / sizeof(uint64_t)];
  };

  struct Table {
    MatchKey mask;
    std::vector<ProbeWord> words;
    std::vector<uint64_t> slots;
    size_t rules = 0;
    int64_t best = INT64_MIN;  // or higher
  };

  struct Coverage {
    size_t rules = 0;
    size_t steps = 0;  // along the chains, for a key of each rule

    double mean_steps() const { return static_cast<double>(steps) / static_cast<double>(rules); }
  };

  Head& head(uint32_t row) { return *reinterpret_cast<Head*>(&lines_[size_t{row} * row_lines_]); }
  const Head& head(uint32_t row) const {
    return *reinterpret_cast<const Head*>(&lines_[size_t{row} * row_lines_]);
  }
  // value and mask of word 0, of word 1, ...
  const uint64_t* tests(uint32_t row) const {
    return lines_[size_t{row} * row_lines_].words + kHeadWords;
  }
  static bool better(const Head& a, const Head& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.age < b.age;
  }

  void write_row(uint32_t row, const IndexRule& rule);
  uint64_t hash_of(const Table& table, uint32_t row) const;
  bool covers(const MatchKey& mask, uint32_t row) const;
  Table make_table(const MatchKey& mask, size_t rules) const;
  void grow(Table& table);
  void link(Table& table, uint32_t row);
  uint32_t chain_length(const Table& table, uint32_t row) const;
  void update_scan();
  std::vector<std::vector<uint64_t>> levels(const std::vector<uint32_t>& rows) const;
  Coverage coverage(const MatchKey& mask, const std::vector<uint32_t>& rows, size_t enough,
                    std::vector<uint32_t>* left) const;
  MatchKey climb(const std::vector<uint32_t>& rows) const;

  template <uint32_t kWords>
  void search(const KeyBatch& keys, uint32_t count, Gate fallback, Gate* gates) const;
  void scan(const KeyBatch& keys, uint32_t count, Gate fallback, Gate* gates) const;

  uint32_t words_ = 0;
  uint32_t range_column_ = 0;
  uint32_t row_lines_ = 1;
  std::vector<Part> parts_;
  size_t size_ = 0;
  size_t changes_ = 0;  // since build()
  size_t rest_ = 0;     // rules that insert() found no place for but the last table
  std::vector<Line> lines_;
  std::vector<Table> tables_;
  // For scan(), the best rule last.
  std::vector<uint64_t> scan_values_;
  std::vector<uint64_t> scan_masks_;
  std::vector<uint64_t> scan_lows_;
  std::vector<uint64_t> scan_highs_;
  std::vector<uint8_t> scan_columns_;
  std::vector<Gate> scan_gates_;
  bool scan_ranges_ = false;
};

}  // namespace e2
