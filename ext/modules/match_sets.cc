// SPDX-License-Identifier: BSD-3-Clause
#include "modules/match_sets.h"

#include <algorithm>
#include <numeric>
#include <variant>

namespace e2 {
namespace {

constexpr uint32_t kNarrowBits = 16;  // which an array has a place for each value of
constexpr uint32_t kClassBits = 31;   // of a class in an index's cell

bool is_text(const Args& args) { return std::holds_alternative<std::string>(args.value()); }

Wide wide_of(const std::string& bytes) {
  Wide number = 0;
  for (const char byte : bytes) number = number << 8 | static_cast<uint8_t>(byte);
  return number;
}

Wide low_bits(uint32_t bits) { return bits == 0 ? 0 : ~Wide{0} >> (kMaxDomainBits - bits); }

Status read_range(const Args& range, uint32_t bits, const std::string& where, ValueRange& read) {
  const std::string& min_bin = range["min_bin"].as_string();
  const std::string& max_bin = range["max_bin"].as_string();
  if (min_bin.empty() && max_bin.empty() && bits <= 64) {
    if (is_text(range["min"]) || is_text(range["max"])) {
      return Status::invalid(where + ": min and max must be numbers");
    }
    read = {range["min"].as_uint(), range["max"].as_uint()};
  } else {
    const uint32_t size = (bits + 7) / 8;
    if (min_bin.size() != size || max_bin.size() != size || range["min"].as_uint() != 0 ||
        range["max"].as_uint() != 0) {
      return Status::invalid(where + ": min_bin and max_bin, and nothing else, must have " +
                             std::to_string(size) + (size == 1 ? " byte" : " bytes"));
    }
    read = {wide_of(min_bin), wide_of(max_bin)};
  }
  if (read.first > read.last) return Status::invalid(where + ": min must not be above max");
  if (read.last > low_bits(bits)) {
    return Status::invalid(where + ": max must fit " + std::to_string(bits) + " bits");
  }
  return {};
}

// How many of the lower bits are 1 wherever an interval ends: they never matter.
uint32_t spare_bits(const std::vector<EncryptedPrefixes::Interval>& intervals, uint32_t bits) {
  Wide ends = low_bits(bits);
  for (const EncryptedPrefixes::Interval& interval : intervals) ends &= interval.last;
  uint32_t spare = 0;
  while (spare + 1 < bits && (ends >> spare & 1) != 0) ++spare;
  return spare;
}

}  // namespace

std::vector<uint32_t> MatchSets::Field::sources() const {
  const uint32_t end = place.bytes ? place.bit + bits : 1;
  std::vector<uint32_t> words((end + 63) / 64);
  std::iota(words.begin(), words.end(), place.word);
  return words;
}

void MatchSets::Field::find(const uint64_t* high, const uint64_t* low, uint32_t count,
                            uint32_t* places) const {
  if (index == nullptr) {
    for (uint32_t i = 0; i < count; ++i) places[i] = static_cast<uint32_t>(high[i] >> (64 - bits));
    return;
  }
  Cell cells[kMaxLookups];
  if (bits <= 32) {
    uint32_t values[kMaxLookups];
    for (uint32_t i = 0; i < count; ++i) values[i] = static_cast<uint32_t>(high[i] >> 32);
    index->find_ipv4(values, count, cells);
  } else {
    index->find(high, low, count, cells);
  }
  for (uint32_t i = 0; i < count; ++i) places[i] = cells[i] >> (32 - kClassBits);
}

Status MatchSets::read(const Args::List& sets, const MatchFields& fields, const std::string& where,
                       std::shared_ptr<const MatchSets>& made) {
  if (sets.empty()) {
    made = nullptr;
    return {};
  }
  const auto all = std::make_shared<MatchSets>();
  std::vector<std::string> order;  // of fields, as they come
  std::unordered_map<std::string, std::vector<size_t>> by_field;
  for (size_t s = 0; s < sets.size(); ++s) {
    const std::string& field = sets[s]["field"].as_string();
    std::vector<size_t>& numbers = by_field[field];
    if (numbers.empty()) order.push_back(field);
    numbers.push_back(s);
  }
  for (const std::string& name : order) {
    Ranges ranges;
    std::vector<std::string> names;
    Field field;
    field.name = name;
    for (const size_t s : by_field[name]) {
      const std::string at = where + "sets[" + std::to_string(s) + "]";
      if (ranges.empty()) {
        Status status = fields.find(name, at, field.place);
        if (!status.ok()) return status;
      }
      const Args::List& list = sets[s]["ranges"].as_list();
      names.push_back(sets[s]["name"].as_string());
      if (names.back().empty()) return Status::invalid(at + ": has no name");
      if (list.empty()) return Status::invalid(at + ": has no ranges, and could never match");
      if (!all->tests_.emplace(names.back(), Test()).second) {
        return Status::error(EEXIST, at + ": there is a set '" + names.back() + "' already");
      }
      ranges.emplace_back(list.size());
      for (size_t r = 0; r < list.size(); ++r) {
        Status status = read_range(list[r], field.place.bits,
                                   at + ".ranges[" + std::to_string(r) + "]", ranges.back()[r]);
        if (!status.ok()) return status;
      }
    }
    Status status = all->add_field(std::move(field), ranges, names, where);
    if (!status.ok()) return status;
  }
  all->text_ = sets;
  made = all;
  return {};
}

Status MatchSets::add_field(Field field, const Ranges& sets, const std::vector<std::string>& names,
                            const std::string& where) {
  SetCodes codes = make_set_codes(sets, field.place.bits);
  const std::string about = where + "sets of " + field.name + ": ";
  if (!codes.status.ok()) return Status::error(codes.status.code, about + codes.status.message);
  const size_t layers = codes.layers.size();
  std::vector<uint32_t> shifts(layers);
  std::vector<uint32_t> words(layers);
  for (size_t layer = 0; layer < layers; ++layer) {
    Status status = place_layer(codes.layers[layer], about, words[layer], shifts[layer]);
    if (!status.ok()) return status;
    const auto same = [&](const Codes& one) { return one.word == kSetWord + words[layer]; };
    auto at = std::find_if(field.codes.begin(), field.codes.end(), same);
    if (at == field.codes.end()) {
      at = field.codes.insert(at, {kSetWord + words[layer], {}});
      at->codes.resize(codes.codes.size() / layers);
    }
    for (size_t c = 0; c < at->codes.size(); ++c) {
      at->codes[c] |= codes.codes[c * layers + layer] << shifts[layer];
    }
  }
  for (size_t s = 0; s < names.size(); ++s) {
    const SetTest& test = codes.tests[s];
    const uint32_t shift = shifts[test.layer];
    tests_[names[s]] = {fields_.size(), kSetWord + words[test.layer], test.value << shift,
                        test.mask << shift};
  }
  index_values(field, std::move(codes.intervals));
  fields_.push_back(std::move(field));
  return {};
}

void MatchSets::index_values(Field& field, std::vector<EncryptedPrefixes::Interval> intervals) {
  const uint32_t spare = spare_bits(intervals, field.place.bits);
  field.bits = field.place.bits - spare;
  for (EncryptedPrefixes::Interval& interval : intervals) interval.last >>= spare;
  if (field.bits > kNarrowBits) {
    EncryptedPrefixes map;
    map.domain_bits = field.bits;
    map.prefix_bits = kClassBits;
    map.intervals = std::move(intervals);
    field.index = std::make_unique<IntervalIndex>(map);
    return;
  }
  for (Codes& codes : field.codes) {
    std::vector<uint64_t> by_value;
    for (const EncryptedPrefixes::Interval& interval : intervals) {
      by_value.resize(static_cast<size_t>(interval.last) + 1, codes.codes[interval.prefix]);
    }
    codes.codes = std::move(by_value);
  }
}

// Layers go into the first word with room.
Status MatchSets::place_layer(uint32_t bits, const std::string& where, uint32_t& word,
                              uint32_t& shift) {
  const auto fits = [bits](uint32_t used) { return used + bits <= 64; };
  word = static_cast<uint32_t>(std::find_if(used_.begin(), used_.end(), fits) - used_.begin());
  if (word == kMaxSetWords) {
    return Status::error(ENOSPC, where + "too many of them cross each other: all codes together " +
                                     "take more than " + std::to_string(kMaxSetWords) +
                                     " words of 8 bytes");
  }
  if (word == used_.size()) {
    used_.push_back(0);
    layers_.emplace_back();
  }
  shift = used_[word];
  used_[word] += bits;
  layers_[word].push_back(~uint64_t{0} >> (64 - bits) << shift);
  return {};
}

const MatchSets::Test* MatchSets::find(const std::string& name) const {
  const auto at = tests_.find(name);
  return at == tests_.end() ? nullptr : &at->second;
}

void MatchSets::add_parts(uint32_t word, uint32_t column,
                          std::vector<RuleIndex::Part>& parts) const {
  for (const uint64_t bits : layers_[word - kSetWord]) parts.push_back({column, bits});
}

}  // namespace e2
