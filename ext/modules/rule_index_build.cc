// SPDX-License-Identifier: BSD-3-Clause
// How a RuleIndex picks the masks of its tables.
#include <algorithm>
#include <map>

#include "modules/rule_index.h"

namespace e2 {
namespace {

constexpr size_t kMaxLevels = 12;
constexpr double kTableSteps = 3;  // along a chain, that one more table costs as much as

uint32_t bit_count(uint64_t word) { return static_cast<uint32_t>(__builtin_popcountll(word)); }

}  // namespace

// What a table may hash of each part: some of the masks that rules have there, from few bits to
// many.
std::vector<std::vector<uint64_t>> RuleIndex::levels(const std::vector<uint32_t>& rows) const {
  std::vector<std::vector<uint64_t>> all(parts_.size());
  for (size_t p = 0; p < parts_.size(); ++p) {
    const Part& part = parts_[p];
    std::map<uint64_t, size_t> masks;
    for (const uint32_t row : rows) ++masks[tests(row)[size_t{2} * part.column + 1] & part.bits];
    masks.erase(0);
    if (masks.empty()) continue;
    uint64_t common = part.bits;
    std::vector<uint64_t> sorted;
    for (const auto& mask : masks) {
      common &= mask.first;
      sorted.push_back(mask.first);
    }
    if (common != 0 && masks.count(common) == 0) sorted.push_back(common);
    std::sort(sorted.begin(), sorted.end(), [](uint64_t a, uint64_t b) {
      return bit_count(a) != bit_count(b) ? bit_count(a) < bit_count(b) : a < b;
    });
    const size_t count = std::min(kMaxLevels, sorted.size());
    for (size_t i = 0; i < count; ++i) {
      all[p].push_back(sorted[count == 1 ? 0 : i * (sorted.size() - 1) / (count - 1)]);
    }
  }
  return all;
}

// What a table with that mask would take in; nothing where not more than `enough` rules have the
// mask's bits at all. `left` gets the others.
RuleIndex::Coverage RuleIndex::coverage(const MatchKey& mask, const std::vector<uint32_t>& rows,
                                        size_t enough, std::vector<uint32_t>* left) const {
  std::vector<ProbeWord> words;
  for (uint32_t w = 0; w < words_; ++w) {
    if (mask.words[w] != 0) words.push_back({mask.words[w], w});
  }
  std::vector<uint32_t> hashes;
  std::vector<uint32_t> fitting;
  hashes.reserve(rows.size());
  if (left != nullptr) left->clear();
  for (const uint32_t row : rows) {
    uint64_t missing = 0;
    uint64_t sum = 0;
    for (const ProbeWord& word : words) {
      const uint64_t* test = tests(row) + size_t{2} * word.column;
      missing |= word.mask & ~test[1];
      sum += probe_sum(test[0] & word.mask, word.column);
    }
    if (missing == 0) {
      hashes.push_back(static_cast<uint32_t>(probe_hash(sum) >> 32));
      if (left != nullptr) fitting.push_back(row);
    } else if (left != nullptr) {
      left->push_back(row);
    }
  }
  if (hashes.size() <= enough) return {};
  struct Count {
    uint32_t hash = 0;
    uint32_t rules = 0;
  };
  size_t size = 16;
  while (size < 2 * hashes.size()) size *= 2;
  std::vector<Count> counts(size);
  Coverage found;
  for (size_t i = 0; i < hashes.size(); ++i) {
    size_t at = hashes[i] & (size - 1);
    while (counts[at].rules != 0 && counts[at].hash != hashes[i]) at = (at + 1) & (size - 1);
    counts[at].hash = hashes[i];
    if (++counts[at].rules <= kChain) {
      ++found.rules;
      found.steps += counts[at].rules;
    } else if (left != nullptr) {
      left->push_back(fitting[i]);
    }
  }
  if (left != nullptr) std::sort(left->begin(), left->end());
  return found;
}

// The mask of a table that takes in as many of the rules as can be found, with as many bits as that
// allows: the more bits, the fewer keys become candidates in vain.
MatchKey RuleIndex::climb(const std::vector<uint32_t>& rows) const {
  const std::vector<std::vector<uint64_t>> choices = levels(rows);
  MatchKey mask;
  size_t most = std::min<size_t>(rows.size(), kChain);
  for (bool more = true; more;) {
    more = false;
    MatchKey next = mask;
    for (size_t p = 0; p < parts_.size(); ++p) {
      for (const uint64_t level : choices[p]) {
        MatchKey tried = mask;
        uint64_t& word = tried.words[parts_[p].column];
        word = (word & ~parts_[p].bits) | level;
        if (word == mask.words[parts_[p].column]) continue;
        const size_t taken = coverage(tried, rows, most, nullptr).rules;
        if (taken <= most) continue;
        most = taken;
        next = tried;
        more = true;
      }
    }
    mask = next;
  }
  // Fewer rules for more bits: a few for any, more where chains get shorter for that.
  const size_t few = most - most / 32;
  const size_t least = most - most / 4;
  Coverage now = coverage(mask, rows, 0, nullptr);
  for (size_t p = 0; p < parts_.size(); ++p) {
    for (const uint64_t level : choices[p]) {
      MatchKey tried = mask;
      uint64_t& word = tried.words[parts_[p].column];
      const uint64_t bits = word & parts_[p].bits;
      if ((bits & ~level) != 0 || bits == level) continue;
      word |= level;
      const Coverage then = coverage(tried, rows, least - 1, nullptr);
      if (then.rules < least) continue;
      const double lost = 1 - static_cast<double>(then.rules) / static_cast<double>(now.rules);
      if (then.rules < few && now.mean_steps() - then.mean_steps() < kTableSteps * lost) continue;
      mask = tried;
      now = then;
    }
  }
  return mask;
}

}  // namespace e2
