// SPDX-License-Identifier: BSD-3-Clause
// MatchSets: named sets of fields' values, as bits of words that rules test (match_fields.h).
//
// The codes of all fields (set_codes.h) are packed into words from kSetWord on. Of a packet, an
// IntervalIndex tells the class that a field's value is in, and an array the code of the class.
// Bits that no range ends in are left aside: where up to 16 are left, as of ports, and of prefixes
// that PrefixMatch makes of addresses, they are the array's index themselves.
//
// Immutable once it is read; tables share it.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "crypto/interval_index.h"
#include "modules/match_fields.h"
#include "modules/set_codes.h"

namespace e2 {

class MatchSets {
 public:
  // What a rule that names a set tests.
  struct Test {
    size_t field = 0;
    uint32_t word = 0;
    uint64_t value = 0;
    uint64_t mask = 0;
  };

  // A word of codes, by class, or by value where there is no index.
  struct Codes {
    uint32_t word = 0;
    std::vector<uint64_t> codes;
  };

  struct Field {
    std::string name;
    FieldPlace place;
    uint32_t bits = 0;  // the upper ones that matter
    std::unique_ptr<IntervalIndex> index;
    std::vector<Codes> codes;

    // The words of packets that it is in.
    std::vector<uint32_t> sources() const;
    // Where the codes are of values whose bits begin at the upper end of `high`. Up to kMaxLookups
    // at once.
    void find(const uint64_t* high, const uint64_t* low, uint32_t count, uint32_t* places) const;
  };

  // Reads messages MetadataMatchSet. None are none: a nullptr.
  static Status read(const Args::List& sets, const MatchFields& fields, const std::string& where,
                     std::shared_ptr<const MatchSets>& made);

  // nullptr where there is no such set.
  const Test* find(const std::string& name) const;
  const std::vector<Field>& fields() const { return fields_; }
  const Args::List& text() const { return text_; }  // as it was given

  // The parts of a word that rules test or don't.
  void add_parts(uint32_t word, uint32_t column, std::vector<RuleIndex::Part>& parts) const;

 private:
  using Ranges = std::vector<std::vector<ValueRange>>;

  Status add_field(Field field, const Ranges& sets, const std::vector<std::string>& names,
                   const std::string& where);
  static void index_values(Field& field, std::vector<EncryptedPrefixes::Interval> intervals);
  Status place_layer(uint32_t bits, const std::string& where, uint32_t& word, uint32_t& shift);

  std::vector<Field> fields_;
  std::unordered_map<std::string, Test> tests_;
  std::vector<std::vector<uint64_t>> layers_;  // the bits of each, by word
  std::vector<uint32_t> used_;                 // bits of each word
  Args::List text_;
};

}  // namespace e2
