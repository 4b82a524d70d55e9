// SPDX-License-Identifier: BSD-3-Clause
// IntervalIndex: which interval of a map a value lies in, for up to 32 values at once.
//
// Intervals are found by their ends: a value's is the one of as many ends as are smaller, so that
// neither the first value nor the last needs care. Cells hold the interval's prefix, left-aligned
// in 32 bits, of which bit 0 says that the cell is a reference instead.
//
// | domain          | layout                                                     | loads per value
// |
// |-----------------|------------------------------------------------------------|-----------------|
// | up to 16 bits   | a prefix per value                                         | 1 | | up to 32
// bits   | a cell per value of the upper 16 bits; where ends lie      | 1 to 3          | | |
// inside, a list of 16-bit ends, then their prefixes         |                 | | wider | a tree
// with 8 ends per node over the upper 64 bits, a cell | 1 per level     | |                 | per
// end; where lower bits matter, a list of their ends, or | and 1 to 3      | |                 |
// from 65 on another tree                                    |                 |
//
// From 17 bits on values are scaled: shifted left until the domain fills 32 or 128 bits. In one of
// 128 IPv4-mapped addresses (::ffff:0:0/96) have a table of their own as in a domain of 32 bits,
// since they all share their upper half. A batch goes through one level of the tree after the
// other, so that 32 loads are on their way at a time. Everything is read-only once it is built.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "crypto/encrypt_prefixes.h"
#include "crypto/huge_array.h"

namespace e2 {

constexpr uint32_t kMaxLookups = 32;

// An interval's prefix as cells have it.
using Cell = uint32_t;
constexpr Cell kReference = 1;  // the rest of the cell is an index

// The ends of intervals in 32 bits, ascending, with their prefixes; the last ends with the domain.
struct Ipv4Interval {
  uint32_t last;
  Cell prefix;
};

class Ipv4Table {
 public:
  explicit Ipv4Table(const std::vector<Ipv4Interval>& intervals);

  void find(const uint32_t* values, uint32_t count, Cell* prefixes) const;
  size_t bytes() const { return cells_.bytes() + lists_.bytes(); }

  const Cell* cells() const { return cells_.data(); }
  // A list: 16 bits of count, that many ends of 16 bits, up to a whole word; count + 1 prefixes.
  const uint32_t* lists() const { return lists_.data(); }

 private:
  HugeArray<Cell> cells_;
  HugeArray<uint32_t> lists_;
};

// Numbers of 64 bits, ascending, in nodes of 8: level 0 has all, the ones above have the smallest
// of each child but the first. Nodes are filled up with the largest number; level 0 has one at
// least.
class SearchTree {
 public:
  static constexpr uint32_t kMaxLevels = 11;
  static constexpr uint32_t kNode = 8;

  explicit SearchTree(const std::vector<uint64_t>& keys);

  uint32_t count() const { return count_; }
  uint32_t levels() const { return levels_; }
  const uint64_t* level(uint32_t i) const { return keys_.data() + start_[i]; }
  size_t bytes() const { return keys_.bytes(); }

 private:
  HugeArray<uint64_t> keys_;
  uint32_t count_;
  uint32_t levels_ = 0;
  uint32_t start_[kMaxLevels] = {};
};

// The ends of intervals in 128 bits, ascending, with their prefixes; the last ends with the domain.
struct WideInterval {
  uint64_t high;
  uint64_t low;
  Cell prefix;
};

class WideTable {
 public:
  explicit WideTable(const std::vector<WideInterval>& intervals);

  void find(const uint64_t* high, const uint64_t* low, uint32_t count, Cell* prefixes) const;
  size_t bytes() const;

  const SearchTree& tree() const { return *tree_; }  // over the upper halves
  const Cell* cells() const { return cells_.data(); }
  // A list: a count and its prefixes, one more; then as many ends of 64 bits, or, with kTreeList in
  // the count, the index of a tree.
  const uint32_t* lists() const { return lists_.data(); }
  const SearchTree& list_tree(uint32_t i) const { return list_trees_[i]; }

  static constexpr uint32_t kMaxListed = 64;
  static constexpr uint32_t kTreeList = 0x80000000U;

 private:
  // Adds a list for intervals that end in one value of the upper half, and the one after them.
  Cell add_list(const WideInterval* intervals, uint32_t count, Cell after,
                std::vector<uint32_t>& lists);

  std::unique_ptr<SearchTree> tree_;
  HugeArray<Cell> cells_;
  HugeArray<uint32_t> lists_;
  std::vector<SearchTree> list_trees_;
};

class IntervalIndex {
 public:
  explicit IntervalIndex(const EncryptedPrefixes& map);

  // For domains of up to 16, 32 and 128 bits. find_ipv4 in one of 128 takes the addresses that are
  // mapped there.
  void find_narrow(const uint64_t* values, uint32_t count, Cell* prefixes) const;
  void find_ipv4(const uint32_t* values, uint32_t count, Cell* prefixes) const;
  void find(const uint64_t* high, const uint64_t* low, uint32_t count, Cell* prefixes) const;

  size_t bytes() const;

 private:
  void build_narrow(const EncryptedPrefixes& map);
  std::vector<WideInterval> without_ipv4(const std::vector<WideInterval>& intervals);

  HugeArray<uint16_t> narrow_;  // upper halves of prefixes
  std::unique_ptr<Ipv4Table> ipv4_;
  std::unique_ptr<WideTable> wide_;
};

}  // namespace e2
