// SPDX-License-Identifier: BSD-3-Clause
#include "modules/match_table.h"

#include <algorithm>
#include <set>

namespace e2 {
namespace {

constexpr uint32_t kNobody = UINT32_MAX;

bool same_ranges(const MatchTests& a, const MatchTests& b) {
  return std::equal(a.low, a.low + kRangeParts, b.low) &&
         std::equal(a.high, a.high + kRangeParts, b.high);
}

bool ranges_overlap(const MatchTests& a, const MatchTests& b) {
  for (uint32_t p = 0; p < kRangeParts; ++p) {
    if (a.low[p] > b.high[p] || b.low[p] > a.high[p]) return false;
  }
  return true;
}

bool has_ranges(const MatchTests& tests) {
  const MatchTests none;
  return !same_ranges(tests, none);
}

// Whether the tests need more of the headers than how long the packet is.
bool needs_headers(const MatchTests& tests) {
  for (const auto& word : tests.words) {
    const bool flow = word.first == kFlowWord;
    const uint64_t length = flow ? 0xffffULL << 16 * kLengthPart : 0;
    if (word.first < kHeaderWords && (word.second.mask & ~length) != 0) return true;
  }
  for (uint32_t p = 0; p < kLengthPart; ++p) {
    if (tests.low[p] != 0 || tests.high[p] != 0xffff) return true;
  }
  return false;
}

void add_words(const MatchTests& tests, std::set<uint32_t>& words) {
  for (const auto& word : tests.words) words.insert(word.first);
  if (has_ranges(tests)) words.insert(kFlowWord);
}

}  // namespace

// Without ranges, and without the bits that only say what all of a range has in common: rules whose
// ranges may overlap have one key.
std::string MatchTable::key_of(const MatchTests& tests) {
  std::string key;
  for (const auto& word : tests.words) {
    uint64_t mask = word.second.mask;
    if (word.first == kFlowWord) {
      for (uint32_t p = 0; p < kRangeParts; ++p) {
        const uint64_t implied = range_bits(tests.low[p], tests.high[p]) << 16 * p;
        const uint64_t part = 0xffffULL << 16 * p;
        if (tests.low[p] != tests.high[p] && (mask & part) == implied) mask &= ~part;
      }
    }
    const uint64_t entry[] = {word.first, word.second.value & mask, mask};
    key.append(reinterpret_cast<const char*>(entry), sizeof entry);
  }
  return key;
}

uint32_t MatchTable::find(const std::string& key, const MatchTests& tests) const {
  const auto at = by_bits_.find(key);
  if (at == by_bits_.end()) return kNobody;
  for (const uint32_t number : at->second) {
    if (same_ranges(stored_[number].rule.tests, tests)) return number;
  }
  return kNobody;
}

Status MatchTable::check(const std::string& key, const NamedRule& rule,
                         const std::string& where) const {
  if (find(key, rule.tests) != kNobody) {
    return Status::error(EEXIST, where + ": duplicate: there is a rule with the same terms; " +
                                     "delete that one first");
  }
  const auto at = by_bits_.find(key);
  if (at == by_bits_.end() || !has_ranges(rule.tests)) return {};
  for (const uint32_t number : at->second) {
    const NamedRule& other = stored_[number].rule;
    if (other.priority != rule.priority || !has_ranges(other.tests)) continue;
    if (!ranges_overlap(other.tests, rule.tests)) continue;
    return Status::invalid(where + ": its range overlaps that of a rule with the same priority " +
                           "and otherwise the same terms; they need different priorities");
  }
  return {};
}

Status MatchTable::check_words(const std::vector<NamedRule>& rules) const {
  const auto needed = [this](const std::set<uint32_t>& words) {
    return words.size() + MatchWords::sources({words.begin(), words.end()}, sets_.get()).size();
  };
  std::set<uint32_t> words(words_.words().begin(), words_.words().end());
  for (const NamedRule& rule : rules) add_words(rule.tests, words);
  if (needed(words) <= kMaxKeyWords) return {};
  words.clear();
  for (const NamedRule* rule : this->rules()) add_words(rule->tests, words);
  for (const NamedRule& rule : rules) add_words(rule.tests, words);
  if (needed(words) <= kMaxKeyWords) return {};
  return Status::invalid("rules test too many different fields: these take " +
                         std::to_string(needed(words)) + " words of 8 bytes; must be at most " +
                         std::to_string(kMaxKeyWords));
}

uint32_t MatchTable::store(const NamedRule& rule, std::string key) {
  uint32_t number = static_cast<uint32_t>(stored_.size());
  if (free_.empty()) {
    stored_.emplace_back();
  } else {
    number = free_.back();
    free_.pop_back();
  }
  stored_[number] = {rule, next_age_++, true};
  by_bits_[std::move(key)].push_back(number);
  return number;
}

void MatchTable::forget(uint32_t number) {
  const auto at = by_bits_.find(key_of(stored_[number].rule.tests));
  std::vector<uint32_t>& numbers = at->second;
  numbers.erase(std::find(numbers.begin(), numbers.end(), number));
  if (numbers.empty()) by_bits_.erase(at);
  stored_[number] = Stored();
  free_.push_back(number);
}

bool MatchTable::loads(const MatchTests& tests) const {
  std::set<uint32_t> words;
  add_words(tests, words);
  return std::all_of(words.begin(), words.end(), [this](uint32_t w) { return words_.has(w); }) &&
         (words_.parses() || !needs_headers(tests));
}

Status MatchTable::add(const std::vector<NamedRule>& rules, const MatchFields& fields,
                       const Where& where) {
  if (size() + rules.size() > kMaxRules) {
    return Status::error(ENOSPC, "there may be at most " + std::to_string(kMaxRules) + " rules");
  }
  Status status = check_words(rules);
  if (!status.ok()) return status;
  std::vector<uint32_t> numbers;
  bool anew = rules.size() > size() / 2;
  for (size_t i = 0; i < rules.size(); ++i) {
    std::string key = key_of(rules[i].tests);
    status = check(key, rules[i], where(i));
    if (!status.ok()) {
      for (auto number = numbers.rbegin(); number != numbers.rend(); ++number) forget(*number);
      return status;
    }
    numbers.push_back(store(rules[i], std::move(key)));
    anew |= !loads(rules[i].tests);
  }
  for (size_t i = 0; i < numbers.size() && !anew; ++i) {
    index_.insert(numbers[i], indexed(stored_[numbers[i]]));
    anew = index_.stale();
  }
  if (anew) rebuild(fields);
  return {};
}

Status MatchTable::erase(const std::vector<MatchTests>& rules, const MatchFields& fields,
                         const Where& where) {
  std::vector<uint32_t> numbers;
  for (size_t i = 0; i < rules.size(); ++i) {
    const uint32_t number = find(key_of(rules[i]), rules[i]);
    if (number == kNobody) return Status::error(ENOENT, where(i) + ": there is no such rule");
    numbers.push_back(number);
  }
  std::vector<uint32_t> sorted = numbers;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    return Status::invalid("delete: names a rule twice");
  }
  for (const uint32_t number : numbers) {
    index_.erase(number);
    forget(number);
  }
  if (index_.stale()) rebuild(fields);
  return {};
}

std::vector<const NamedRule*> MatchTable::rules() const {
  std::vector<const Stored*> used;
  for (const Stored& stored : stored_) {
    if (stored.used) used.push_back(&stored);
  }
  std::sort(used.begin(), used.end(),
            [](const Stored* a, const Stored* b) { return a->age < b->age; });
  std::vector<const NamedRule*> rules;
  rules.reserve(used.size());
  for (const Stored* stored : used) rules.push_back(&stored->rule);
  return rules;
}

IndexRule MatchTable::indexed(const Stored& stored) const {
  IndexRule rule;
  for (const auto& word : stored.rule.tests.words) {
    const uint32_t column = words_.column(word.first);
    rule.value.words[column] = word.second.value;
    rule.mask.words[column] = word.second.mask;
  }
  std::copy(stored.rule.tests.low, stored.rule.tests.low + kRangeParts, rule.low);
  std::copy(stored.rule.tests.high, stored.rule.tests.high + kRangeParts, rule.high);
  rule.priority = stored.rule.priority;
  rule.age = stored.age;
  rule.gate = stored.rule.gate;
  return rule;
}

// Ages start over, or they would run out some day.
void MatchTable::rebuild(const MatchFields& fields) {
  std::vector<uint32_t> order;
  std::set<uint32_t> words;
  bool parses = false;
  for (uint32_t number = 0; number < stored_.size(); ++number) {
    if (!stored_[number].used) continue;
    order.push_back(number);
    add_words(stored_[number].rule.tests, words);
    parses |= needs_headers(stored_[number].rule.tests);
  }
  std::sort(order.begin(), order.end(),
            [this](uint32_t a, uint32_t b) { return stored_[a].age < stored_[b].age; });
  next_age_ = 0;
  for (const uint32_t number : order) stored_[number].age = next_age_++;
  words_ = MatchWords({words.begin(), words.end()}, parses, fields, sets_);
  std::vector<RuleIndex::Part> parts;
  const std::vector<uint32_t>& all = words_.words();
  for (uint32_t column = 0; column < all.size(); ++column) {
    if (all[column] >= kSetWord && all[column] < kRawWord) {
      sets_->add_parts(all[column], column, parts);
    } else {
      fields.add_parts(all[column], column, parts);
    }
  }
  std::vector<IndexRule> rules(stored_.size());
  std::vector<const IndexRule*> by_number(stored_.size(), nullptr);
  for (const uint32_t number : order) {
    rules[number] = indexed(stored_[number]);
    by_number[number] = &rules[number];
  }
  const uint32_t ranged = words_.has(kFlowWord) ? words_.column(kFlowWord) : 0;
  index_ = RuleIndex(static_cast<uint32_t>(all.size()), ranged, std::move(parts));
  index_.build(by_number);
}

}  // namespace e2
