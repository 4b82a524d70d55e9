// SPDX-License-Identifier: BSD-3-Clause
// EncryptPrefixes: ranges of a field's values to encrypted prefixes (Embark; C. Lan's dissertation,
// section 4.2.2).
//
// The ends of all ranges cut the domain into intervals whose values belong to the same ranges. Each
// such set of ranges gets a random prefix of its own; a range is encrypted as the prefixes of its
// intervals. So prefixes tell which ranges overlap and how many sets there are, but nothing about
// where ranges lie, how long they are and in what order they stand.
//
// Two sets are taken for the same if the random 128-bit numbers of their ranges add up (XOR) to the
// same: a mistake has probability 2^-128 per pair, and everything is done in n log n.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "crypto/secret_random.h"
#include "host/status.h"

namespace e2 {

__extension__ using Wide = unsigned __int128;

// All values from first to last.
struct ValueRange {
  Wide first;
  Wide last;
};

// What lets maps that are made one after the other have the same prefixes for the same sets.
struct RangeNames {
  // A number per range, none of them 0. Ranges with the same one are parts of one set of values,
  // and must not overlap; the numbers are random, or a PRF of what they stand for.
  std::vector<Wide> ids;
  // The prefixes that an earlier map had, by the XOR of the ids of its ranges. Others are drawn
  // apart from these as long as there is room.
  std::vector<std::pair<Wide, uint32_t>> kept;
};

constexpr uint32_t kMaxDomainBits = 128;
constexpr uint32_t kMaxPrefixBits = 31;  // the lookup tables keep a bit of 32 to themselves

struct EncryptedPrefixes {
  struct Interval {
    Wide last;  // it begins where the one before ends
    uint32_t prefix;
  };

  // EINVAL: a range or number of bits that makes no sense; ERANGE: a range leaves the domain;
  // EEXIST: a range is given twice, under one name; ENOSPC: the prefixes have too few bits for so
  // many sets.
  Status status;
  uint32_t domain_bits = 0;
  uint32_t prefix_bits = 0;
  uint32_t sets = 0;
  std::vector<Interval> intervals;                      // ascending; the last ends with the domain
  std::vector<std::pair<uint32_t, uint32_t>> rules;     // first and last interval of each range
  std::vector<std::pair<Wide, uint32_t>> set_prefixes;  // each set's id and prefix, by id

  // The encryption of range i: its prefixes, ascending.
  std::vector<uint32_t> rule(size_t i) const;
};

// prefix_bits 0: as many as the sets need and two more, in which four times as many have room; at
// least 16 where the domain has 64 or more; never more than the domain.
EncryptedPrefixes encrypt_prefixes(const std::vector<ValueRange>& ranges, uint32_t domain_bits,
                                   uint32_t prefix_bits, SecretRandom& random);

// The same for ranges that have names; with `kept` there must be prefix_bits.
EncryptedPrefixes encrypt_named_prefixes(const std::vector<ValueRange>& ranges,
                                         const RangeNames& names, uint32_t domain_bits,
                                         uint32_t prefix_bits, SecretRandom& random);

}  // namespace e2
