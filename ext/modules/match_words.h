// SPDX-License-Identifier: BSD-3-Clause
// MatchWords: the words (match_fields.h) that some rules test, loaded from a batch as keys.
//
// Only what rules ask for is loaded: headers are not parsed where no rule tests any, and attributes
// and bytes by offset are moves of their own size.
#pragma once

#include <cstring>
#include <vector>

#include "modules/match_fields.h"

namespace e2 {

class MatchWords {
 public:
  MatchWords() = default;
  // Words in ascending order. `parses` says whether any rule tests more of the headers than there
  // are bytes; it may only be false where the packet's length is all that kFlowWord is there for.
  MatchWords(std::vector<uint32_t> words, bool parses, const MatchFields& fields);

  void load(const Module& module, const Batch& batch, KeyBatch& keys) const;

  const std::vector<uint32_t>& words() const { return words_; }
  bool has(uint32_t word) const;
  uint32_t column(uint32_t word) const;
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

  void load_headers(const Batch& batch, KeyBatch& keys) const;
  void load_attr(const Module& module, const Batch& batch, const Attr& attr, KeyBatch& keys) const;
  static void load_raw(const Batch& batch, const Raw& raw, KeyBatch& keys);

  std::vector<uint32_t> words_;
  bool parses_ = false;
  // The column of each word of the headers; the last one, which no key has, for those not asked.
  uint32_t columns_[kHeaderWords] = {};
  std::vector<Attr> attrs_;
  std::vector<Raw> raws_;
};

}  // namespace e2
