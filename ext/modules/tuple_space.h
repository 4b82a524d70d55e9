// SPDX-License-Identifier: BSD-3-Clause
// TupleSpace: ternary rules over keys, the best of which is found by tuple space search.
//
// A few rules are all compared (rule_scan.h). More have one hash table (key_table.h) per set of
// masks; tables are visited in the order of their highest priorities, and a key leaves the search
// when no later table can win. The highest priority wins, and the older rule among equals. A rule's
// payload is its priority, its age and gate in one word, and the values to write. Lookups neither
// allocate nor lock; changes run beside them in a Live<> (host/live_table.h) only.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <memory>

#include "modules/key_table.h"

namespace e2 {

class TupleSpace {
 public:
  // Where a rule's values to write start in its payload.
  static constexpr uint32_t kValues = 2;

  static int64_t priority_of(const uint64_t* payload) { return static_cast<int64_t>(payload[0]); }
  static Gate gate_of(const uint64_t* payload) { return static_cast<Gate>(payload[1]); }
  static uint64_t age_of(const uint64_t* payload) { return payload[1] >> 16; }

  // The rules with one set of masks.
  struct Tuple {
    MatchKey mask;
    KeyTable table;
    std::map<int64_t, size_t> priorities;  // how many rules have which
    int64_t best = 0;
  };

  TupleSpace() = default;
  TupleSpace(uint32_t key_words, uint32_t value_words, size_t reserve)
      : key_words_(key_words), value_words_(value_words), reserve_(reserve) {}

  // Adds a rule, or replaces the one with the same key and mask, which keeps its age.
  void add(const MatchKey& key, const MatchKey& mask, int64_t priority, Gate gate,
           const MatchKey& values) {
    std::unique_ptr<Tuple>& known = by_mask_[words(mask)];
    if (known == nullptr) {
      known = std::make_unique<Tuple>();
      known->mask = mask;
      known->table = KeyTable(key_words_, kValues + value_words_);
      known->table.reserve(reserve_);
      known->best = INT64_MIN;
      order_.push_back(known.get());
    }
    bool created = false;
    uint64_t* payload = known->table.insert(key.words, created);
    uint64_t age = next_age_;
    if (created) {
      ++next_age_;
      ++size_;
    } else {
      age = age_of(payload);
      forget(*known, priority_of(payload));
    }
    payload[0] = static_cast<uint64_t>(priority);
    payload[1] = age << 16 | gate;
    std::memcpy(payload + kValues, values.words, value_words_ * sizeof(uint64_t));
    ++known->priorities[priority];
    update_order(known.get());
    update_scan();
  }

  // The payload of the rule with that key and mask, or nullptr.
  const uint64_t* find(const MatchKey& key, const MatchKey& mask) const {
    const auto it = by_mask_.find(words(mask));
    return it == by_mask_.end() ? nullptr : it->second->table.find(key.words);
  }

  // False when there is no such rule.
  bool erase(const MatchKey& key, const MatchKey& mask) {
    const auto it = by_mask_.find(words(mask));
    if (it == by_mask_.end()) return false;
    Tuple& tuple = *it->second;
    const uint64_t* payload = tuple.table.find(key.words);
    if (payload == nullptr) return false;
    forget(tuple, priority_of(payload));
    tuple.table.erase(key.words);
    --size_;
    if (tuple.table.size() == 0) {
      order_.erase(std::find(order_.begin(), order_.end(), &tuple));
      by_mask_.erase(it);
    } else {
      update_order(&tuple);
    }
    update_scan();
    return true;
  }

  void clear() {
    order_.clear();
    by_mask_.clear();
    size_ = 0;
    update_scan();
  }

  // The payload of each key's best rule, or nullptr.
  void find_batch(const KeyBatch& keys, uint32_t count, const uint64_t** best) const {
    if (size_ <= kMaxScanRules) {
      scan(keys, count, best);
    } else {
      search(keys, count, best);
    }
  }

  size_t size() const { return size_; }
  const std::vector<Tuple*>& tuples() const { return order_; }

 private:
  using MaskWords = std::array<uint64_t, kMaxKeyWords>;

  static bool better(const uint64_t* a, const uint64_t* b) {
    const int64_t first = priority_of(a);
    const int64_t second = priority_of(b);
    return first != second ? first > second : age_of(a) < age_of(b);
  }

  static MaskWords words(const MatchKey& mask) {
    MaskWords copy;
    std::copy(mask.words, mask.words + kMaxKeyWords, copy.begin());
    return copy;
  }

  static void forget(Tuple& tuple, int64_t priority) {
    const auto it = tuple.priorities.find(priority);
    if (--it->second == 0) tuple.priorities.erase(it);
  }

  // Moves a tuple whose best priority changed to its new place.
  void update_order(Tuple* tuple) {
    const int64_t best = tuple->priorities.rbegin()->first;
    if (best == tuple->best) return;
    tuple->best = best;
    order_.erase(std::find(order_.begin(), order_.end(), tuple));
    const auto better_best = [](const Tuple* a, const Tuple* b) { return a->best > b->best; };
    order_.insert(std::upper_bound(order_.begin(), order_.end(), tuple, better_best), tuple);
  }

  // Lays all rules out for a scan, the best one last.
  void update_scan() {
    scan_payloads_.clear();
    scan_columns_.clear();
    if (size_ > kMaxScanRules) return;
    struct Rule {
      const Tuple* tuple;
      size_t row;
    };
    std::vector<Rule> rules;
    for (const Tuple* tuple : order_) {
      for (size_t row = 0; row < tuple->table.size(); ++row) rules.push_back({tuple, row});
    }
    std::sort(rules.begin(), rules.end(), [](const Rule& a, const Rule& b) {
      return better(b.tuple->table.payload(b.row), a.tuple->table.payload(a.row));
    });
    scan_values_.assign(size_t{kMaxScanRules} * kMaxKeyWords, 0);
    scan_masks_.assign(size_t{kMaxScanRules} * kMaxKeyWords, 0);
    for (size_t r = 0; r < rules.size(); ++r) {
      const size_t bytes = key_words_ * sizeof(uint64_t);
      const Tuple& tuple = *rules[r].tuple;
      std::memcpy(&scan_values_[r * kMaxKeyWords], tuple.table.row(rules[r].row), bytes);
      std::memcpy(&scan_masks_[r * kMaxKeyWords], tuple.mask.words, bytes);
      scan_payloads_.push_back(tuple.table.payload(rules[r].row));
    }
    for (uint32_t w = 0; w < key_words_; ++w) {
      bool counts = false;
      for (size_t r = 0; r < rules.size(); ++r) counts |= scan_masks_[r * kMaxKeyWords + w] != 0;
      if (counts) scan_columns_.push_back(static_cast<uint8_t>(w));
    }
  }

  void scan(const KeyBatch& keys, uint32_t count, const uint64_t** best) const {
    uint64_t hits[kMaxBatch];
    rule_scan(
        keys, count,
        {scan_values_.data(), kMaxKeyWords, scan_masks_.data(), kMaxKeyWords, scan_columns_.data(),
         static_cast<uint32_t>(scan_columns_.size()), static_cast<uint32_t>(scan_payloads_.size())},
        hits);
    const uint64_t* const* const payloads = scan_payloads_.data();
    for (uint32_t i = 0; i < count; ++i) {
      best[i] = hits[i] == kNoRule ? nullptr : payloads[hits[i]];
    }
  }

  void search(const KeyBatch& keys, uint32_t count, const uint64_t** best) const {
    KeyBatch masked;
    const uint64_t* found[kMaxBatch];
    int64_t reached[kMaxBatch];  // priorities of the best so far
    uint8_t open[kMaxBatch];     // keys that a later tuple may still serve better
    for (uint32_t i = 0; i < count; ++i) {
      best[i] = nullptr;
      reached[i] = INT64_MIN;
      open[i] = static_cast<uint8_t>(i);
    }
    for (const Tuple* tuple : order_) {
      uint32_t kept = 0;
      for (uint32_t i = 0; i < count; ++i) {
        const uint8_t at = open[i];
        open[kept] = at;
        kept += reached[at] <= tuple->best;
      }
      count = kept;
      if (count == 0) return;
      for (uint32_t w = 0; w < key_words_; ++w) {
        const uint64_t mask = tuple->mask.words[w];
        for (uint32_t i = 0; i < count; ++i) masked.words[w][i] = keys.words[w][open[i]] & mask;
        masked.pad(count, w);
      }
      tuple->table.find_batch(masked, count, found);
      for (uint32_t i = 0; i < count; ++i) {
        const uint64_t*& at = best[open[i]];
        if (found[i] == nullptr || (at != nullptr && !better(found[i], at))) continue;
        at = found[i];
        reached[open[i]] = priority_of(found[i]);
      }
    }
  }

  uint32_t key_words_ = 0;
  uint32_t value_words_ = 0;
  size_t reserve_ = 0;
  size_t size_ = 0;
  uint64_t next_age_ = 0;
  std::map<MaskWords, std::unique_ptr<Tuple>> by_mask_;
  std::vector<Tuple*> order_;
  // For scan(): kMaxKeyWords words per rule, and pointers into the tuples' tables.
  std::vector<uint64_t> scan_values_;
  std::vector<uint64_t> scan_masks_;
  std::vector<uint8_t> scan_columns_;
  std::vector<const uint64_t*> scan_payloads_;
};

}  // namespace e2
