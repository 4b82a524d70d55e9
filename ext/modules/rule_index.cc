// SPDX-License-Identifier: BSD-3-Clause
#include "modules/rule_index.h"

#include <algorithm>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace e2 {
namespace {

constexpr size_t kMinSlots = 8;

uint64_t parts_word(const uint16_t* parts, uint16_t last) {
  uint64_t word = static_cast<uint64_t>(last) << 48;
  for (uint32_t p = 0; p < kRangeParts; ++p) word |= static_cast<uint64_t>(parts[p]) << 16 * p;
  return word;
}

// Whether the first parts of a word are all within their ranges.
inline bool within(uint64_t word, const uint16_t* low, const uint16_t* high) {
#if defined(__x86_64__)
  // 4 parts at once, of which the last one is none.
  const __m128i key = _mm_cvtsi64_si128(static_cast<int64_t>(word));
  const __m128i lows = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(low));
  const __m128i highs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(high));
  const __m128i outside = _mm_or_si128(_mm_subs_epu16(lows, key), _mm_subs_epu16(key, highs));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(outside)) << 16 == 0;
#else
  bool good = true;
  for (uint32_t p = 0; p < kRangeParts; ++p) {
    const auto part = static_cast<uint16_t>(word >> 16 * p);
    good &= part >= low[p] && part <= high[p];
  }
  return good;
#endif
}

}  // namespace

RuleIndex::RuleIndex(uint32_t words, uint32_t range_column, std::vector<Part> parts)
    : words_(words),
      range_column_(range_column),
      row_lines_((kHeadWords + 2 * words + 7) / 8),
      parts_(std::move(parts)) {}

void RuleIndex::write_row(uint32_t row, const IndexRule& rule) {
  if (lines_.size() < size_t{row + 1} * row_lines_) lines_.resize(size_t{row + 1} * row_lines_);
  Head& at = head(row);
  at.priority = rule.priority;
  at.age = rule.age;
  at.next = kNone;
  at.gate = rule.gate;
  at.used = 1;
  std::copy(rule.low, rule.low + kRangeParts, at.low);
  std::copy(rule.high, rule.high + kRangeParts, at.high);
  uint64_t* words = lines_[size_t{row} * row_lines_].words + kHeadWords;
  for (uint32_t w = 0; w < words_; ++w) {
    words[size_t{2} * w] = rule.value.words[w];
    words[size_t{2} * w + 1] = rule.mask.words[w];
  }
}

uint64_t RuleIndex::hash_of(const Table& table, uint32_t row) const {
  uint64_t sum = 0;
  for (const ProbeWord& word : table.words) {
    sum += probe_sum(tests(row)[size_t{2} * word.column] & word.mask, word.column);
  }
  return probe_hash(sum);
}

bool RuleIndex::covers(const MatchKey& mask, uint32_t row) const {
  for (uint32_t w = 0; w < words_; ++w) {
    if ((mask.words[w] & ~tests(row)[size_t{2} * w + 1]) != 0) return false;
  }
  return true;
}

RuleIndex::Table RuleIndex::make_table(const MatchKey& mask, size_t rules) const {
  Table table;
  table.mask = mask;
  for (uint32_t w = 0; w < words_; ++w) {
    if (mask.words[w] != 0) table.words.push_back({mask.words[w], w});
  }
  size_t slots = table.words.empty() ? 1 : kMinSlots;
  while (slots > 1 && slots < 2 * rules) slots *= 2;
  table.slots.assign(slots, uint64_t{kNone} << 32);
  return table;
}

// Twice the slots.
void RuleIndex::grow(Table& table) {
  const std::vector<uint64_t> old = std::move(table.slots);
  table.slots.assign(2 * old.size(), uint64_t{kNone} << 32);
  table.rules = 0;
  for (const uint64_t slot : old) {
    for (auto row = static_cast<uint32_t>(slot >> 32); row != kNone;) {
      const uint32_t next = head(row).next;
      link(table, row);
      row = next;
    }
  }
}

void RuleIndex::link(Table& table, uint32_t row) {
  const uint64_t hash = hash_of(table, row);
  uint64_t& slot = table.slots[probe_slot(hash, table.slots.size() - 1)];
  auto first = static_cast<uint32_t>(slot >> 32);
  uint32_t* at = &first;
  while (*at != kNone && better(head(*at), head(row))) at = &head(*at).next;
  head(row).next = *at;
  *at = row;
  slot = static_cast<uint64_t>(first) << 32 | static_cast<uint32_t>(slot) | probe_signature(hash);
  table.best = std::max(table.best, head(row).priority);
  ++table.rules;
}

uint32_t RuleIndex::chain_length(const Table& table, uint32_t row) const {
  const uint64_t slot = table.slots[probe_slot(hash_of(table, row), table.slots.size() - 1)];
  uint32_t length = 0;
  for (auto at = static_cast<uint32_t>(slot >> 32); at != kNone; at = head(at).next) ++length;
  return length;
}

void RuleIndex::build(const std::vector<const IndexRule*>& rules) {
  lines_.assign(rules.size() * row_lines_, Line{});
  tables_.clear();
  size_ = 0;
  changes_ = 0;
  rest_ = 0;
  std::vector<uint32_t> rows;
  for (uint32_t number = 0; number < rules.size(); ++number) {
    if (rules[number] == nullptr) continue;
    write_row(number, *rules[number]);
    rows.push_back(number);
  }
  size_ = rows.size();
  std::vector<uint32_t> left;
  while (!rows.empty()) {
    MatchKey mask = climb(rows);
    const size_t taken = coverage(mask, rows, 0, &left).rules;
    if (taken <= kChain) {  // nothing tells the rest apart
      mask = MatchKey();
      left.clear();
    }
    std::vector<uint32_t> rest = left;
    rest.push_back(kNone);
    Table table = make_table(mask, rows.size() - left.size());
    const uint32_t* skip = rest.data();
    for (const uint32_t row : rows) {
      if (row == *skip) {
        ++skip;
      } else {
        link(table, row);
      }
    }
    tables_.push_back(std::move(table));
    rows.swap(left);
  }
  // The one that is a single chain comes last. Not stable_sort: its buffer isn't aligned as tables
  // are.
  std::sort(tables_.begin(), tables_.end(), [](const Table& a, const Table& b) {
    return a.words.empty() != b.words.empty() ? b.words.empty() : a.rules > b.rules;
  });
  update_scan();
}

void RuleIndex::insert(uint32_t number, const IndexRule& rule) {
  write_row(number, rule);
  ++size_;
  ++changes_;
  Table* chosen = nullptr;
  Table* last = nullptr;
  for (Table& table : tables_) {
    if (table.words.empty()) last = &table;
    if (chosen != nullptr || table.words.empty() || !covers(table.mask, number)) continue;
    if (chain_length(table, number) < 2 * kChain) chosen = &table;
  }
  if (chosen == nullptr) {
    if (last == nullptr) {
      tables_.push_back(make_table(MatchKey(), 1));
      last = &tables_.back();
    }
    chosen = last;
    ++rest_;
  } else if (chosen->rules >= chosen->slots.size()) {
    grow(*chosen);
  }
  link(*chosen, number);
  update_scan();
}

void RuleIndex::erase(uint32_t number) {
  for (Table& table : tables_) {
    if (!covers(table.mask, number)) continue;
    uint64_t& slot = table.slots[probe_slot(hash_of(table, number), table.slots.size() - 1)];
    auto first = static_cast<uint32_t>(slot >> 32);
    uint32_t* at = &first;
    while (*at != kNone && *at != number) at = &head(*at).next;
    if (*at == kNone) continue;
    *at = head(number).next;
    slot = static_cast<uint64_t>(first) << 32;
    for (uint32_t row = first; row != kNone; row = head(row).next) {
      slot |= probe_signature(hash_of(table, row));
    }
    --table.rules;
    break;
  }
  head(number).used = 0;
  --size_;
  ++changes_;
  tables_.erase(std::remove_if(tables_.begin(), tables_.end(),
                               [](const Table& table) { return table.rules == 0; }),
                tables_.end());
  update_scan();
}

bool RuleIndex::stale() const {
  constexpr size_t kFew = 64;
  if (changes_ > std::max(kFew, size_ / 2)) return true;
  return rest_ > size_t{4} * kChain && changes_ > size_ / 16;
}

// Lays all rules out for a scan, the best one last.
void RuleIndex::update_scan() {
  if (size_ > kMaxScanRules) return;
  std::vector<uint32_t> rows;
  for (uint32_t row = 0; size_t{row} * row_lines_ < lines_.size(); ++row) {
    if (head(row).used != 0) rows.push_back(row);
  }
  std::sort(rows.begin(), rows.end(),
            [this](uint32_t a, uint32_t b) { return better(head(b), head(a)); });
  scan_values_.assign(rows.size() * words_, 0);
  scan_masks_.assign(rows.size() * words_, 0);
  scan_lows_.clear();
  scan_highs_.clear();
  scan_gates_.clear();
  scan_columns_.clear();
  scan_ranges_ = false;
  for (size_t r = 0; r < rows.size(); ++r) {
    const Head& at = head(rows[r]);
    for (uint32_t w = 0; w < words_; ++w) {
      scan_values_[r * words_ + w] = tests(rows[r])[size_t{2} * w];
      scan_masks_[r * words_ + w] = tests(rows[r])[size_t{2} * w + 1];
    }
    scan_lows_.push_back(parts_word(at.low, 0));
    scan_highs_.push_back(parts_word(at.high, 0xffff));
    scan_gates_.push_back(at.gate);
    scan_ranges_ |= scan_lows_.back() != 0 || scan_highs_.back() != UINT64_MAX;
  }
  for (uint32_t w = 0; w < words_; ++w) {
    bool counts = false;
    for (size_t r = 0; r < rows.size(); ++r) counts |= scan_masks_[r * words_ + w] != 0;
    if (counts) scan_columns_.push_back(static_cast<uint8_t>(w));
  }
}

void RuleIndex::scan(const KeyBatch& keys, uint32_t count, Gate fallback, Gate* gates) const {
  uint64_t hits[kMaxBatch];
  ScanRules rules;
  rules.values = scan_values_.data();
  rules.masks = scan_masks_.data();
  rules.value_stride = rules.mask_stride = words_;
  rules.columns = scan_columns_.data();
  rules.column_count = static_cast<uint32_t>(scan_columns_.size());
  rules.rules = static_cast<uint32_t>(scan_gates_.size());
  if (scan_ranges_) {
    rules.lows = scan_lows_.data();
    rules.highs = scan_highs_.data();
    rules.range_column = range_column_;
  }
  rule_scan(keys, count, rules, hits);
  const Gate* const by_rule = scan_gates_.data();
  for (uint32_t i = 0; i < count; ++i) gates[i] = hits[i] == kNoRule ? fallback : by_rule[hits[i]];
}

// kWords is the number of words of a key, or 0 for any.
template <uint32_t kWords>
void RuleIndex::search(const KeyBatch& keys, uint32_t count, Gate fallback, Gate* gates) const {
  const uint32_t words = kWords == 0 ? words_ : kWords;
  const size_t stride = (kHeadWords + 2 * words + 7) / 8;
  const Line* const lines = lines_.data();
  const uint64_t* const ranged = keys.words[range_column_];
  int64_t reached[kMaxBatch];  // priorities of the best so far
  uint32_t ages[kMaxBatch];
  uint32_t rows[kMaxBatch];
  for (uint32_t i = 0; i < kMaxBatch; ++i) {
    reached[i] = INT64_MIN;
    ages[i] = UINT32_MAX;
    gates[i] = fallback;
  }
  for (const Table& table : tables_) {
    const ProbeTable probe = {table.slots.data(), table.slots.size() - 1, table.words.data(),
                              static_cast<uint32_t>(table.words.size()), table.best};
    uint32_t candidates = rule_probe(keys, count, reached, probe, rows);
    for (uint32_t left = candidates; left != 0; left &= left - 1) {
      __builtin_prefetch(lines + rows[__builtin_ctz(left)] * stride);
    }
    for (; candidates != 0; candidates &= candidates - 1) {
      const auto i = static_cast<uint32_t>(__builtin_ctz(candidates));
      uint32_t row = rows[i];
      do {
        const Line* const line = lines + row * stride;
        const Head& at = *reinterpret_cast<const Head*>(line);
        if (at.priority < reached[i] || (at.priority == reached[i] && at.age > ages[i])) break;
        const uint64_t* const tests = line->words + kHeadWords;
        uint64_t differs = 0;
        for (uint32_t w = 0; w < words; ++w) {
          differs |= (keys.words[w][i] & tests[size_t{2} * w + 1]) ^ tests[size_t{2} * w];
        }
        if (differs == 0 && within(ranged[i], at.low, at.high)) {
          reached[i] = at.priority;
          ages[i] = at.age;
          gates[i] = at.gate;
          break;
        }
        row = at.next;
      } while (row != kNone);
    }
  }
}

void RuleIndex::find_batch(const KeyBatch& keys, uint32_t count, Gate fallback, Gate* gates) const {
  if (size_ <= kMaxScanRules) {
    scan(keys, count, fallback, gates);
  } else if (words_ == 1) {
    search<1>(keys, count, fallback, gates);
  } else if (words_ == 2) {
    search<2>(keys, count, fallback, gates);
  } else if (words_ == 3) {
    search<3>(keys, count, fallback, gates);
  } else {
    search<0>(keys, count, fallback, gates);
  }
}

}  // namespace e2
