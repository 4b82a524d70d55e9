// SPDX-License-Identifier: BSD-3-Clause
// rule_probe: a batch of keys against one hash table of a RuleIndex (rule_index.h), with vector
// instructions.
//
// A slot of the table is one word: the lower half says which of 32 signatures its rules have, the
// upper half is the row of the first of them. A key is a candidate where the slot has its
// signature.
#pragma once

#include <cstddef>
#include <cstdint>

#include "modules/field_key.h"

namespace e2 {

// The bits of one word of the keys that a table hashes.
struct ProbeWord {
  uint64_t mask;
  uint32_t column;
};

struct ProbeTable {
  const uint64_t* slots;
  uint64_t last;  // the number of slots, a power of 2, less one
  const ProbeWord* words;
  uint32_t word_count;
  int64_t best;  // priority that no rule of the table exceeds
};

// Odd numbers for each column: one for the lower half of a word, one for the upper half. A hash is
// the sum of the products, folded and multiplied once more.
struct ProbeFactors {
  uint32_t low[kMaxKeyWords];
  uint32_t high[kMaxKeyWords];
};
constexpr ProbeFactors kProbeFactors = {
    {0x9e3779b1, 0x85ebca77, 0xc2b2ae3d, 0x27d4eb2f, 0x165667b1, 0xd6e8feb9, 0xcc9e2d51, 0x1b873593,
     0xe6546b65, 0x7feb352d, 0x846ca68b, 0xff51afd7, 0xed558ccd, 0xc4ceb9fe + 1, 0x1a85ec53,
     0x9fb21c65},
    {0x2545f491, 0x4f6cdd1d, 0xa0761d65, 0xe7037ed1, 0x8ebc6af1, 0x589965cd, 0x1d8e4e27, 0xeb44acc9,
     0xb4b82e3b, 0x62a9d9ed, 0x6c8e9cf5, 0x94d049bb, 0xbf58476d, 0x3c6ef373, 0x510e527f,
     0x6a09e667}};
constexpr uint32_t kProbeFinish = 0xb5297a4d;
constexpr uint32_t kSignatures = 32;

inline uint64_t probe_sum(uint64_t masked, uint32_t column) {
  return (masked & 0xffffffff) * kProbeFactors.low[column] +
         (masked >> 32) * kProbeFactors.high[column];
}
inline uint64_t probe_hash(uint64_t sum) {
  return ((sum ^ sum >> 32) & 0xffffffff) * uint64_t{kProbeFinish};
}
inline uint64_t probe_slot(uint64_t hash, uint64_t last) { return hash >> 32 & last; }
inline uint32_t probe_signature(uint64_t hash) {
  return static_cast<uint32_t>(1) << (hash >> 27 & (kSignatures - 1));
}

// Bit i of the result: key i is a candidate, and rows[i] the row to start at. Keys with a rule of a
// higher priority than the table's best one (reached[i]) are left out. `reached` and `rows` have
// kMaxBatch entries.
uint32_t rule_probe(const KeyBatch& keys, uint32_t count, const int64_t* reached,
                    const ProbeTable& table, uint32_t* rows);

}  // namespace e2
