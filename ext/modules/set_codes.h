// SPDX-License-Identifier: BSD-3-Clause
// SetCodes: sets of a field's values, as masked compares of a code that each value has.
//
// Values that are in just the same sets are one class, whatever lies between them. A class gets a
// code of a few bits, in which a set is a prefix: its values are those whose code has these upper
// bits. That takes sets of which any two are disjoint or one holds the other, as prefixes of
// addresses are, before and after PrefixMatch (C. Lan's dissertation, section 4.2.2), which keeps
// nothing of a set but what it holds and what holds it. Sets that cross go into layers, each with a
// code of its own; sets that all cross each other take a bit each. So a rule needs one compare for
// a field, and not one per range: sets are never multiplied with each other.
//
// | step    | how                                                                            |
// |---------|--------------------------------------------------------------------------------|
// | classes | one set after another splits those classes of intervals that it holds in part  |
// | layers  | from the largest set to the smallest, into the first layer in which all of its |
// |         | classes have the same smallest set around them, which then holds it            |
// | codes   | from the inside out, each set as few bits as its parts need (Kraft's           |
// |         | inequality); those that need most come first: each begins at a multiple of its |
// |         | size                                                                           |
//
// Cost: O(ranges log ranges + members * layers), where members are the intervals that all sets have
// together. A layer of n sets, at most d one in another, takes at most log2(n) + d + 1 bits:
// ClassBench's sets of 10,000 rules take 14 bits for each address and 7 for a port.
#pragma once

#include <cstdint>
#include <vector>

#include "crypto/encrypt_prefixes.h"

namespace e2 {

// Of one layer's code: those with (code & mask) == value.
struct SetTest {
  uint32_t layer = 0;
  uint64_t value = 0;
  uint64_t mask = 0;
};

struct SetCodes {
  // E2BIG: the sets have too many intervals in common; ENOSPC: too many cross each other.
  Status status;
  std::vector<uint32_t> layers;  // how many bits the code has in each, 1 to 64
  std::vector<SetTest> tests;    // of each set
  // Ascending, to the end of the domain; `prefix` is the class.
  std::vector<EncryptedPrefixes::Interval> intervals;
  std::vector<uint64_t> codes;  // of each class, in one layer after the other
};

constexpr size_t kMaxSetMembers = size_t{1} << 25;
constexpr uint32_t kMaxSetLayers = 512;

// Sets have one range at least; ranges are within the domain and may overlap.
SetCodes make_set_codes(const std::vector<std::vector<ValueRange>>& sets, uint32_t domain_bits);

}  // namespace e2
