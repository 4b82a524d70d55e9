// SPDX-License-Identifier: BSD-3-Clause
// RuleIndex and ranges of rule_scan against comparing all rules, at the level that E2_ISA asks for.
#include <doctest/doctest.h>

#include <map>
#include <random>
#include <vector>

#include "modules/rule_index.h"

namespace {

using e2::Gate;
using e2::IndexRule;
using e2::KeyBatch;
using e2::kMaxBatch;
using e2::kRangeParts;
using e2::RuleIndex;
using Random = std::mt19937_64;

constexpr Gate kFallback = 9999;
constexpr uint32_t kRangeColumn = 0;

// Few different values, so that rules and keys meet.
uint64_t word(Random& random) {
  uint64_t made = 0;
  for (uint32_t shift = 0; shift < 64; shift += 16) made |= (random() % 4) << shift;
  return made;
}

uint64_t mask(Random& random) {
  uint64_t made = 0;
  for (uint32_t shift = 0; shift < 64; shift += 16) {
    made |= (random() % 2 == 0 ? 0 : 0xffffULL << random() % 2) << shift;
  }
  return made;
}

IndexRule random_rule(Random& random, uint32_t words, uint32_t age) {
  IndexRule rule;
  for (uint32_t w = 0; w < words; ++w) {
    rule.mask.words[w] = random() % 3 == 0 ? 0 : mask(random);
    rule.value.words[w] = word(random) & rule.mask.words[w];
  }
  for (uint32_t p = 0; p < kRangeParts && words != 0; ++p) {
    if (random() % 4 != 0) continue;
    rule.low[p] = random() % 4;
    rule.high[p] = static_cast<uint16_t>(rule.low[p] + random() % 3);
  }
  rule.priority = static_cast<int64_t>(random() % 5) - 2;
  if (random() % 50 == 0) rule.priority = random() % 2 == 0 ? INT64_MIN : INT64_MAX;
  rule.age = age;
  rule.gate = static_cast<Gate>(age % 5000);
  return rule;
}

bool holds(const IndexRule& rule, const KeyBatch& keys, uint32_t i, uint32_t words) {
  for (uint32_t w = 0; w < words; ++w) {
    if ((keys.words[w][i] & rule.mask.words[w]) != rule.value.words[w]) return false;
  }
  for (uint32_t p = 0; p < kRangeParts && words != 0; ++p) {
    const auto part = static_cast<uint16_t>(keys.words[kRangeColumn][i] >> 16 * p);
    if (part < rule.low[p] || part > rule.high[p]) return false;
  }
  return true;
}

Gate best_of(const std::map<uint32_t, IndexRule>& rules, const KeyBatch& keys, uint32_t i,
             uint32_t words) {
  const IndexRule* best = nullptr;
  for (const auto& entry : rules) {
    const IndexRule& rule = entry.second;
    if (!holds(rule, keys, i, words)) continue;
    const bool better = best == nullptr || rule.priority > best->priority ||
                        (rule.priority == best->priority && rule.age < best->age);
    if (better) best = &rule;
  }
  return best == nullptr ? kFallback : best->gate;
}

void compare(const RuleIndex& index, const std::map<uint32_t, IndexRule>& rules, uint32_t words,
             Random& random) {
  for (int round = 0; round < 4; ++round) {
    KeyBatch keys;
    const uint32_t count = random() % kMaxBatch + 1;
    for (uint32_t w = 0; w < words; ++w) {
      for (uint32_t i = 0; i < count; ++i) keys.words[w][i] = word(random);
      keys.pad(count, w);
    }
    Gate gates[kMaxBatch];
    index.find_batch(keys, count, kFallback, gates);
    for (uint32_t i = 0; i < count; ++i) REQUIRE(gates[i] == best_of(rules, keys, i, words));
  }
}

RuleIndex make_index(uint32_t words) {
  std::vector<RuleIndex::Part> parts;
  for (uint32_t w = 0; w < words; ++w) {
    for (uint32_t shift = 0; shift < 64; shift += 32) parts.push_back({w, 0xffffffffULL << shift});
  }
  return {words, kRangeColumn, parts};
}

void build(RuleIndex& index, const std::map<uint32_t, IndexRule>& rules) {
  std::vector<const IndexRule*> by_number;
  for (const auto& entry : rules) {
    by_number.resize(entry.first + 1, nullptr);
    by_number[entry.first] = &entry.second;
  }
  index.build(by_number);
}

}  // namespace

TEST_CASE("an index finds the rule that comparing all of them finds") {
  Random random(11);
  for (const uint32_t words : {1, 2, 3, 4, 7, 16}) {
    for (const uint32_t count : {0, 1, 16, 17, 40, 400}) {
      std::map<uint32_t, IndexRule> rules;
      uint32_t age = 0;
      for (; age < count; ++age) rules[age] = random_rule(random, words, age);
      RuleIndex index = make_index(words);
      build(index, rules);
      REQUIRE(index.size() == count);
      compare(index, rules, words, random);
      for (int change = 0; change < 60; ++change) {
        const uint32_t number = random() % (count + 20);
        if (rules.erase(number) != 0) {
          index.erase(number);
        } else {
          const IndexRule rule = random_rule(random, words, age++);
          index.insert(number, rule);
          rules[number] = rule;
        }
        REQUIRE(index.size() == rules.size());
        if (change % 5 == 0) compare(index, rules, words, random);
        if (!index.stale()) continue;
        build(index, rules);
        REQUIRE_FALSE(index.stale());
      }
      const RuleIndex copy = index;
      index = RuleIndex();
      compare(copy, rules, words, random);
    }
  }
}

TEST_CASE("an index of a few masks has few tables") {
  Random random(12);
  std::map<uint32_t, IndexRule> rules;
  for (uint32_t number = 0; number < 2000; ++number) {
    IndexRule& rule = rules[number];
    const uint32_t length = random() % 16 + 16;
    rule.mask.words[1] = 0xffffffffULL << length;
    rule.value.words[1] = random() & rule.mask.words[1];
    rule.priority = number;
    rule.age = number;
    rule.gate = static_cast<Gate>(number);
  }
  RuleIndex index = make_index(2);
  build(index, rules);
  CHECK(index.tables() <= 3);
}
