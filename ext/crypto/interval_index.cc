// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/interval_index.h"

#include <cstring>

#include "crypto/interval_kernels.h"

namespace e2 {
namespace {

constexpr uint32_t kCells = 1U << 16;
constexpr uint32_t kVectorWords = 8;        // a kernel may load so much from where a list begins
constexpr uint64_t kMappedPrefix = 0xffff;  // bits 32 to 47 of an IPv4-mapped address
constexpr uint64_t kMappedFirst = kMappedPrefix << 32;
constexpr uint64_t kMappedLast = kMappedFirst | 0xffffffffU;

bool is_mapped(uint64_t high, uint64_t low) { return (high | (low >> 32 ^ kMappedPrefix)) == 0; }

Cell reference_to(const std::vector<uint32_t>& lists) {
  return static_cast<Cell>(lists.size()) << 1 | kReference;
}

}  // namespace

Ipv4Table::Ipv4Table(const std::vector<Ipv4Interval>& intervals) {
  std::vector<Cell> cells(kCells);
  std::vector<uint32_t> lists;
  size_t next = 0;
  for (uint32_t block = 0; block < kCells; ++block) {
    const uint32_t block_last = block << 16 | 0xffff;
    const size_t first = next;
    while (intervals[next].last < block_last) ++next;
    const auto count = static_cast<uint32_t>(next - first);
    if (count == 0) {
      cells[block] = intervals[next].prefix;
    } else {
      cells[block] = reference_to(lists);
      std::vector<uint16_t> ends(static_cast<size_t>(count + 2) / 2 * 2);
      ends[0] = static_cast<uint16_t>(count);
      for (uint32_t i = 0; i < count; ++i) {
        ends[i + 1] = static_cast<uint16_t>(intervals[first + i].last);
      }
      const size_t at = lists.size();
      lists.resize(at + ends.size() / 2);
      std::memcpy(&lists[at], ends.data(), ends.size() * sizeof ends[0]);
      for (size_t i = first; i <= next; ++i) lists.push_back(intervals[i].prefix);
    }
    if (intervals[next].last == block_last) ++next;
  }
  lists.insert(lists.end(), kVectorWords, 0);
  cells_ = HugeArray<Cell>(cells);
  lists_ = HugeArray<uint32_t>(lists);
}

void Ipv4Table::find(const uint32_t* values, uint32_t count, Cell* prefixes) const {
  interval_kernels().find_ipv4(*this, values, count, prefixes);
}

SearchTree::SearchTree(const std::vector<uint64_t>& keys)
    : count_(static_cast<uint32_t>(keys.size())) {
  constexpr uint64_t kFiller = ~uint64_t{0};
  // One more than there are keys, so that key(count) can be read.
  size_t nodes = keys.size() / kNode + 1;
  std::vector<uint64_t> all(keys);
  all.resize(nodes * kNode, kFiller);
  levels_ = 1;
  // A separator is the smallest key of the child at its right: that child's leftmost leaf has it.
  for (size_t leaves = 1; nodes > 1; leaves *= kNode + 1, ++levels_) {
    start_[levels_] = static_cast<uint32_t>(all.size());
    const size_t children = nodes;
    nodes = (children + kNode) / (kNode + 1);
    for (size_t node = 0; node < nodes; ++node) {
      for (size_t i = 1; i <= kNode; ++i) {
        const size_t key = (node * (kNode + 1) + i) * leaves * kNode;
        all.push_back(key < keys.size() ? keys[key] : kFiller);
      }
    }
  }
  keys_ = HugeArray<uint64_t>(all);
}

WideTable::WideTable(const std::vector<WideInterval>& intervals) {
  std::vector<uint64_t> keys;
  std::vector<Cell> cells;
  std::vector<uint32_t> lists;
  for (size_t first = 0; first < intervals.size();) {
    size_t next = first + 1;
    while (next < intervals.size() && intervals[next].high == intervals[first].high) ++next;
    const auto count = static_cast<uint32_t>(next - first);
    keys.push_back(intervals[first].high);
    if (count == 1 && intervals[first].low == ~uint64_t{0}) {
      cells.push_back(intervals[first].prefix);
    } else {
      const Cell after = intervals[next < intervals.size() ? next : next - 1].prefix;
      cells.push_back(add_list(&intervals[first], count, after, lists));
    }
    first = next;
  }
  tree_ = std::make_unique<SearchTree>(keys);
  cells_ = HugeArray<Cell>(cells);
  lists_ = HugeArray<uint32_t>(lists);
}

Cell WideTable::add_list(const WideInterval* intervals, uint32_t count, Cell after,
                         std::vector<uint32_t>& lists) {
  const Cell reference = reference_to(lists);
  const bool tree = count > kMaxListed;
  lists.push_back(count | (tree ? kTreeList : 0));
  std::vector<uint64_t> lows;
  for (uint32_t i = 0; i < count; ++i) {
    lists.push_back(intervals[i].prefix);
    lows.push_back(intervals[i].low);
  }
  lists.push_back(after);
  if (tree) {
    lists.push_back(static_cast<uint32_t>(list_trees_.size()));
    list_trees_.emplace_back(lows);
  } else {
    const size_t at = lists.size();
    lists.resize(at + 2 * lows.size());
    std::memcpy(&lists[at], lows.data(), lows.size() * sizeof lows[0]);
  }
  return reference;
}

void WideTable::find(const uint64_t* high, const uint64_t* low, uint32_t count,
                     Cell* prefixes) const {
  interval_kernels().find_wide(*this, high, low, count, prefixes);
}

size_t WideTable::bytes() const {
  size_t bytes = tree_->bytes() + cells_.bytes() + lists_.bytes();
  for (const SearchTree& tree : list_trees_) bytes += tree.bytes();
  return bytes;
}

IntervalIndex::IntervalIndex(const EncryptedPrefixes& map) {
  if (map.domain_bits <= 32) {
    build_narrow(map);
    return;
  }
  std::vector<WideInterval> intervals;
  const uint32_t shift = kMaxDomainBits - map.domain_bits;
  const Wide filler = (Wide{1} << shift) - 1;
  for (const EncryptedPrefixes::Interval& interval : map.intervals) {
    const Wide last = interval.last << shift | filler;
    intervals.push_back({static_cast<uint64_t>(last >> 64), static_cast<uint64_t>(last),
                         interval.prefix << (32 - map.prefix_bits)});
  }
  if (map.domain_bits == kMaxDomainBits) intervals = without_ipv4(intervals);
  wide_ = std::make_unique<WideTable>(intervals);
}

void IntervalIndex::build_narrow(const EncryptedPrefixes& map) {
  if (map.domain_bits <= 16) {
    std::vector<uint16_t> prefixes;
    for (const EncryptedPrefixes::Interval& interval : map.intervals) {
      prefixes.resize(static_cast<size_t>(interval.last) + 1,
                      static_cast<uint16_t>(interval.prefix << (16 - map.prefix_bits)));
    }
    narrow_ = HugeArray<uint16_t>(prefixes);
    return;
  }
  const uint32_t shift = 32 - map.domain_bits;
  std::vector<Ipv4Interval> intervals;
  for (const EncryptedPrefixes::Interval& interval : map.intervals) {
    const auto last = static_cast<uint32_t>(interval.last) << shift | ((1U << shift) - 1);
    intervals.push_back({last, interval.prefix << (32 - map.prefix_bits)});
  }
  ipv4_ = std::make_unique<Ipv4Table>(intervals);
}

// The tree gets what lies before the mapped addresses and behind them; between, one interval that
// is never looked up.
std::vector<WideInterval> IntervalIndex::without_ipv4(const std::vector<WideInterval>& intervals) {
  std::vector<WideInterval> wide;
  std::vector<Ipv4Interval> mapped;
  bool before = true;
  for (const WideInterval& interval : intervals) {
    if (before && (interval.high > 0 || interval.low >= kMappedFirst)) {
      before = false;
      const bool ends_there = !wide.empty() && wide.back().low == kMappedFirst - 1;
      if (!ends_there) wide.push_back({0, kMappedFirst - 1, interval.prefix});
    }
    const bool behind = interval.high > 0 || interval.low > kMappedLast;
    if (!before && (mapped.empty() || mapped.back().last != UINT32_MAX)) {
      mapped.push_back(
          {behind ? UINT32_MAX : static_cast<uint32_t>(interval.low), interval.prefix});
      if (mapped.back().last == UINT32_MAX) wide.push_back({0, kMappedLast, interval.prefix});
    }
    if (before || behind) wide.push_back(interval);
  }
  if (mapped.size() == 1) return intervals;  // nothing ends among them
  ipv4_ = std::make_unique<Ipv4Table>(mapped);
  return wide;
}

void IntervalIndex::find_narrow(const uint64_t* values, uint32_t count, Cell* prefixes) const {
  const uint16_t* narrow = narrow_.data();
  for (uint32_t i = 0; i < count; ++i) prefixes[i] = static_cast<Cell>(narrow[values[i]]) << 16;
}

void IntervalIndex::find_ipv4(const uint32_t* values, uint32_t count, Cell* prefixes) const {
  if (ipv4_ != nullptr) {
    ipv4_->find(values, count, prefixes);
    return;
  }
  // None ends among the mapped addresses: they all have one.
  const uint64_t high = 0;
  const uint64_t low = kMappedFirst;
  Cell prefix;
  wide_->find(&high, &low, 1, &prefix);
  for (uint32_t i = 0; i < count; ++i) prefixes[i] = prefix;
}

void IntervalIndex::find(const uint64_t* high, const uint64_t* low, uint32_t count,
                         Cell* prefixes) const {
  if (ipv4_ == nullptr) {
    wide_->find(high, low, count, prefixes);
    return;
  }
  uint32_t mapped[kMaxLookups];
  uint32_t mapped_count = 0;
  for (uint32_t i = 0; i < count; ++i) {
    mapped[mapped_count] = i;
    mapped_count += static_cast<uint32_t>(is_mapped(high[i], low[i]));
  }
  if (mapped_count < count) wide_->find(high, low, count, prefixes);
  if (mapped_count == 0) return;
  uint32_t values[kMaxLookups];
  Cell found[kMaxLookups];
  for (uint32_t i = 0; i < mapped_count; ++i) values[i] = static_cast<uint32_t>(low[mapped[i]]);
  ipv4_->find(values, mapped_count, found);
  for (uint32_t i = 0; i < mapped_count; ++i) prefixes[mapped[i]] = found[i];
}

size_t IntervalIndex::bytes() const {
  return narrow_.bytes() + (ipv4_ != nullptr ? ipv4_->bytes() : 0) +
         (wide_ != nullptr ? wide_->bytes() : 0);
}

}  // namespace e2
