// SPDX-License-Identifier: BSD-3-Clause
// RuleTable: ternary rules over 64-byte keys, best rule first.
//
// Up to 16 rules are compared in order. More are grouped by mask, with one hash table per mask
// (tuple space search); groups are visited in the order of their best rule, and a search ends when
// no later group can win. A lookup neither allocates nor locks; assign must not run beside it.
#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "host/module.h"

namespace e2 {

struct alignas(kCacheLineBytes) MatchKey {
  static constexpr uint32_t kWords = 8;
  uint64_t words[kWords] = {};
  uint8_t* bytes() { return reinterpret_cast<uint8_t*>(words); }
};

struct MatchRule {
  MatchKey value;  // 0 wherever the mask is
  MatchKey mask;
  int64_t priority = 0;
  Gate gate = 0;
};

class RuleTable {
 public:
  // Replaces all rules. The highest priority comes first, and the earlier rule among equals.
  void assign(std::vector<MatchRule> rules) {
    std::stable_sort(rules.begin(), rules.end(), [](const MatchRule& a, const MatchRule& b) {
      return a.priority > b.priority;
    });
    rules_ = std::move(rules);
    group();
  }

  // The best rule that matches, or nullptr.
  const MatchRule* find(const MatchKey& key) const {
    return tuples_.empty() ? find_linear(key) : find_tuples(key);
  }

  const std::vector<MatchRule>& rules() const { return rules_; }
  size_t size() const { return rules_.size(); }

 private:
  static constexpr size_t kLinearRules = 16;

  // All rules with one mask, hashed by their masked value. Slots hold a rule's index + 1.
  struct Tuple {
    MatchKey mask;
    uint32_t best = 0;  // the smallest rule index in here
    std::vector<uint8_t> used;
    std::vector<uint32_t> slots;

    uint64_t hash(const MatchKey& key) const {
      uint64_t sum = 0x9e3779b97f4a7c15ULL;
      for (uint8_t i : used) {
        sum = (sum ^ (key.words[i] & mask.words[i])) * 0xd6e8feb86659fd93ULL;
        sum ^= sum >> 32;
      }
      return sum;
    }
  };

  static bool matches(const MatchKey& key, const MatchKey& mask, const MatchKey& value) {
    uint64_t difference = 0;
    for (uint32_t i = 0; i < MatchKey::kWords; i++) {
      difference |= (key.words[i] & mask.words[i]) ^ value.words[i];
    }
    return difference == 0;
  }

  const MatchRule* find_linear(const MatchKey& key) const {
    for (const MatchRule& rule : rules_) {
      if (matches(key, rule.mask, rule.value)) return &rule;
    }
    return nullptr;
  }

  const MatchRule* find_tuples(const MatchKey& key) const {
    size_t best = rules_.size();
    for (const Tuple& tuple : tuples_) {
      if (tuple.best >= best) break;
      size_t last = tuple.slots.size() - 1;
      for (size_t at = tuple.hash(key) & last; tuple.slots[at] != 0; at = (at + 1) & last) {
        size_t index = tuple.slots[at] - 1;
        if (!matches(key, tuple.mask, rules_[index].value)) continue;
        best = std::min(best, index);
        break;
      }
    }
    return best < rules_.size() ? &rules_[best] : nullptr;
  }

  // Tuples come out in the order of their best rules, because rules are sorted.
  void group() {
    tuples_.clear();
    if (rules_.size() <= kLinearRules) return;
    std::map<std::vector<uint64_t>, std::vector<uint32_t>> members;
    std::vector<const std::vector<uint32_t>*> order;
    for (uint32_t i = 0; i < rules_.size(); i++) {
      const uint64_t* words = rules_[i].mask.words;
      std::vector<uint32_t>& same = members[std::vector<uint64_t>(words, words + MatchKey::kWords)];
      if (same.empty()) order.push_back(&same);
      same.push_back(i);
    }
    for (const std::vector<uint32_t>* same : order) tuples_.push_back(make_tuple(*same));
  }

  Tuple make_tuple(const std::vector<uint32_t>& same) const {
    Tuple tuple;
    tuple.mask = rules_[same[0]].mask;
    tuple.best = same[0];
    for (uint8_t i = 0; i < MatchKey::kWords; i++) {
      if (tuple.mask.words[i] != 0) tuple.used.push_back(i);
    }
    size_t slots = 2;
    while (slots < 2 * same.size()) slots *= 2;
    tuple.slots.assign(slots, 0);
    for (uint32_t index : same) {
      const MatchKey& value = rules_[index].value;
      size_t at = tuple.hash(value) & (slots - 1);
      while (tuple.slots[at] != 0 &&
             !matches(value, tuple.mask, rules_[tuple.slots[at] - 1].value)) {
        at = (at + 1) & (slots - 1);
      }
      // A rule behind an equal one could never win; it stays out.
      if (tuple.slots[at] == 0) tuple.slots[at] = index + 1;
    }
    return tuple;
  }

  std::vector<MatchRule> rules_;  // best first
  std::vector<Tuple> tuples_;
};

}  // namespace e2
