// SPDX-License-Identifier: BSD-3-Clause
// MatchFields: packet fields and attributes by name, as bits of words that packets are matched by.
//
// All that a packet can be asked for stands in 64-bit words with fixed numbers; which of them a
// table loads is up to its rules (match_table.h). Fields of whole bytes keep the order that they
// have in memory; those smaller than 8 bytes from the IP header upwards, and ports, are numbers. A
// field that a packet lacks is told from a 0 by bits that say what there is.
//
// | word           | from bit 0 on                                                              |
// |----------------|----------------------------------------------------------------------------|
// | kFlowWord      | source port or ICMP type and code, destination port, length: 16 bits each; |
// |                | protocol 8, IP version 4, then one bit each for: protocol, ports, ICMP,    |
// |                | fragment                                                                   |
// | kLinkWord      | EtherType, VLAN tag: 16 bits each; TOS, TTL, TCP flags: 8 each; then one   |
// |                | bit each for: Ethernet, VLAN tag                                           |
// | kIp4Word       | source and destination                                                     |
// | kIp6Word + 0.. | source and destination, 2 words each                                       |
// | kMacDstWord    | 6 bytes                                                                    |
// | kMacSrcWord    | 6 bytes                                                                    |
// | kMplsWord      | the first label's 32 bits, and one that there is one                       |
// | kAttrWord + .. | attributes, none across a border that it needn't cross                     |
// | kSetWord + n   | codes of the sets that values are in (match_sets.h)                        |
// | kRawWord + n   | bytes 8n to 8n + 7 of the packet                                           |
#pragma once

#include <map>
#include <string>
#include <vector>

#include "modules/rule_index.h"

namespace e2 {

constexpr uint32_t kFlowWord = 0;
constexpr uint32_t kLinkWord = 1;
constexpr uint32_t kIp4Word = 2;
constexpr uint32_t kIp6Word = 3;
constexpr uint32_t kMacDstWord = 7;
constexpr uint32_t kMacSrcWord = 8;
constexpr uint32_t kMplsWord = 9;
constexpr uint32_t kHeaderWords = 10;
constexpr uint32_t kAttrWord = 16;
constexpr uint32_t kSetWord = 32;
constexpr uint32_t kMaxSetWords = kMaxKeyWords - 2;  // and one that is looked up, with the flow's
constexpr uint32_t kRawWord = 64;

// Bits of kFlowWord and kLinkWord that say what there is.
constexpr uint64_t kHasProto = 1ULL << 60;
constexpr uint64_t kHasPorts = 1ULL << 61;
constexpr uint64_t kHasIcmp = 1ULL << 62;
constexpr uint64_t kIsFragment = 1ULL << 63;
constexpr uint64_t kHasEther = 1ULL << 56;
constexpr uint64_t kHasVlan = 1ULL << 57;
constexpr uint64_t kHasMpls = 1ULL << 32;

// Which of the ranged parts of kFlowWord is the packet's length.
constexpr uint32_t kLengthPart = 2;

constexpr uint32_t kMaxWideBytes = 16;  // of an attribute or a raw field

// What a rule asks for: bits of words, and ranges of the parts of kFlowWord.
struct MatchTests {
  struct Bits {
    uint64_t value = 0;
    uint64_t mask = 0;
  };
  std::map<uint32_t, Bits> words;
  uint16_t low[kRangeParts] = {0, 0, 0};
  uint16_t high[kRangeParts] = {0xffff, 0xffff, 0xffff};

  // False where a bit would have to be both 0 and 1.
  bool require(uint32_t word, uint64_t value, uint64_t mask);
};

// Where a field is, and what else holds where a packet has it: bits of kFlowWord, and bits that are
// 1 in kLinkWord or kMplsWord.
struct FieldPlace {
  struct Needs {
    uint64_t value;
    uint64_t mask;
    uint64_t link;
    uint64_t mpls;
  };

  uint32_t word = 0;
  uint32_t bit = 0;
  uint32_t bits = 0;
  bool bytes = false;  // in the order that they have in memory, maybe beyond the word; or a number
  Needs needs = {0, 0, 0, 0};
  uint32_t raw_end = 0;  // of a raw field: how long a packet that has it is at least
};

// The bits that all numbers from `low` to `high` have in common.
uint64_t range_bits(uint16_t low, uint16_t high);

class MatchSets;

class MatchFields {
 public:
  struct Attr {
    std::string name;
    uint32_t size;
    uint32_t pos;  // in bytes from the start of kAttrWord
    size_t id;     // of the module's attribute
  };

  // `id` is what the module gets for declaring the attribute.
  Status add_attr(const std::string& name, uint64_t size, const std::string& where,
                  const std::function<size_t(uint32_t)>& declare);
  bool has_attr(const std::string& name) const { return find_attr(name) != nullptr; }
  const std::vector<Attr>& attrs() const { return attrs_; }

  // The name of the attribute that a field name means, or nothing.
  static std::string attr_of(const std::string& field);

  // A field by its name; `where` names it in errors.
  Status find(const std::string& name, const std::string& where, FieldPlace& place) const;
  // Reads all terms of a rule, which may name these sets; nullptr where there are none.
  Status read(const Args::List& terms, const MatchSets* sets, const std::string& where,
              MatchTests& tests) const;

  // The parts of a word that rules test or don't.
  void add_parts(uint32_t word, uint32_t column, std::vector<RuleIndex::Part>& parts) const;

 private:
  const Attr* find_attr(const std::string& name) const;
  static Status read_range(const Args& term, const FieldPlace& place, const std::string& where,
                           MatchTests& tests, bool& good);
  static Status read_set(const Args& term, const MatchSets* sets, const std::string& where,
                         MatchTests& tests, bool& good);

  std::vector<Attr> attrs_;
  uint32_t attr_bytes_ = 0;
};

}  // namespace e2
