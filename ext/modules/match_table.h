// SPDX-License-Identifier: BSD-3-Clause
// MatchTable: rules over fields by name, with what loads the fields and what finds the best rule.
//
// Words (match_fields.h) get a place in the key when a rule first tests them. A change that needs
// other words than those, or changes much, builds the index anew; others touch only their rules.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "modules/match_words.h"
#include "modules/rule_index.h"

namespace e2 {

struct NamedRule {
  MatchTests tests;
  int64_t priority = 0;
  Gate gate = 0;
  std::shared_ptr<const Args> text;  // as it was given
};

class MatchTable {
 public:
  static constexpr size_t kMaxRules = 1u << 20;

  MatchTable() = default;
  // For rules that may name these sets; nullptr is none.
  explicit MatchTable(std::shared_ptr<const MatchSets> sets) : sets_(std::move(sets)) {}

  // Adds all rules or none. `where(i)` names rule i in errors.
  using Where = std::function<std::string(size_t)>;
  Status add(const std::vector<NamedRule>& rules, const MatchFields& fields, const Where& where);
  // Removes the rules with just these tests, all or none.
  Status erase(const std::vector<MatchTests>& rules, const MatchFields& fields, const Where& where);
  void clear() { *this = MatchTable(sets_); }

  // Where each packet goes; `fallback` without a rule. `gates` has kMaxBatch entries.
  void find_batch(const Module& module, const Batch& batch, Gate fallback, Gate* gates) const {
    KeyBatch keys;
    words_.load(module, batch, keys);
    index_.find_batch(keys, batch.size, fallback, gates);
  }

  const std::shared_ptr<const MatchSets>& sets() const { return sets_; }
  size_t size() const { return index_.size(); }
  size_t tables() const { return index_.tables(); }
  // In the order in which they were added.
  std::vector<const NamedRule*> rules() const;

 private:
  struct Stored {
    NamedRule rule;
    uint32_t age = 0;
    bool used = false;
  };

  static std::string key_of(const MatchTests& tests);
  uint32_t find(const std::string& key, const MatchTests& tests) const;
  Status check(const std::string& key, const NamedRule& rule, const std::string& where) const;
  Status check_words(const std::vector<NamedRule>& rules) const;
  uint32_t store(const NamedRule& rule, std::string key);
  void forget(uint32_t number);
  bool loads(const MatchTests& tests) const;
  IndexRule indexed(const Stored& stored) const;
  void rebuild(const MatchFields& fields);

  std::shared_ptr<const MatchSets> sets_;
  MatchWords words_;
  RuleIndex index_;
  std::vector<Stored> stored_;
  std::vector<uint32_t> free_;
  std::unordered_map<std::string, std::vector<uint32_t>> by_bits_;  // which differ by ranges
  uint32_t next_age_ = 0;
};

}  // namespace e2
