// SPDX-License-Identifier: BSD-3-Clause
// MatchWords: the words (match_fields.h) that some rules test, loaded from a batch as keys.
//
// Only what rules ask for is loaded: headers are not parsed where no rule tests any, and attributes
// and bytes by offset are moves of their own size. Words of sets (match_sets.h) come of others,
// which stand in the columns behind those that rules test.
#pragma once

#include <cstring>
#include <vector>

#include "modules/match_sets.h"

namespace e2 {

class MatchWords {
 public:
  MatchWords() = default;
  // Words in ascending order. `parses` says whether any rule tests more of the headers than there
  // are bytes; it may only be false where the packet's length is all that kFlowWord is there for.
  MatchWords(std::vector<uint32_t> words, bool parses, const MatchFields& fields,
             const std::shared_ptr<const MatchSets>& sets);

  // The words that sets' ones among these come of, and that aren't among them.
  static std::vector<uint32_t> sources(const std::vector<uint32_t>& words, const MatchSets* sets);

  void load(const Module& module, const Batch& batch, KeyBatch& keys) const;

  const std::vector<uint32_t>& words() const { return words_; }
  bool has(uint32_t word) const;         // whether rules may test it
  uint32_t column(uint32_t word) const;  // of a word that is loaded
  bool parses() const { return parses_; }

 private:
  struct Attr {
    uint32_t column;
    uint32_t shift;
    uint32_t skip;  // bytes of the attribute that are in the column before
    uint32_t size;
    size_t id;
    bool first;  // in its column
  };
  struct Raw {
    uint32_t column;
    uint32_t offset;
  };
  struct SetField {
    struct Target {
      uint32_t column;
      const uint64_t* codes;
      bool first;  // in its column
    };
    const MatchSets::Field* field;
    uint32_t sources[3];  // columns
    std::vector<Target> targets;
  };

  void load_headers(const Batch& batch, KeyBatch& keys) const;
  void load_attr(const Module& module, const Batch& batch, const Attr& attr, KeyBatch& keys) const;
  static void load_raw(const Batch& batch, const Raw& raw, KeyBatch& keys);
  static void load_set_field(const SetField& from, uint32_t count, KeyBatch& keys);
  void plan_set_fields(const MatchSets& sets);

  std::vector<uint32_t> words_;
  std::vector<uint32_t> sources_;  // in the columns behind them
  bool parses_ = false;
  // The column of each word of the headers; the last one, which no key has, for those not asked.
  uint32_t columns_[kHeaderWords] = {};
  std::vector<Attr> attrs_;
  std::vector<Raw> raws_;
  std::vector<SetField> set_fields_;
  std::shared_ptr<const MatchSets> sets_;  // which set_fields_ point into
};

}  // namespace e2
