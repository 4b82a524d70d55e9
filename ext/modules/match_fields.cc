// SPDX-License-Identifier: BSD-3-Clause
#include "modules/match_fields.h"

#include <algorithm>
#include <variant>

#include "host/headers.h"
#include "modules/field_value.h"
#include "modules/match_sets.h"

namespace e2 {
namespace {

constexpr uint32_t kMaxAttrWords = 12;

constexpr uint64_t kVersionBits = 0xfULL << 56;
constexpr uint64_t kIpBit = 4ULL << 56;  // of versions 4 and 6
constexpr uint64_t kVersion4 = 4ULL << 56;
constexpr uint64_t kVersion6 = 6ULL << 56;
constexpr uint64_t kProtoBits = 0xffULL << 48;

using Needs = FieldPlace::Needs;
constexpr Needs kNothing = {0, 0, 0, 0};
constexpr Needs kEther = {0, 0, kHasEther, 0};
constexpr Needs kVlan = {0, 0, kHasVlan, 0};
constexpr Needs kMpls = {0, 0, 0, kHasMpls};
constexpr Needs kIp = {kIpBit, kIpBit, 0, 0};
constexpr Needs kIp4 = {kVersion4, kVersionBits, 0, 0};
constexpr Needs kIp6 = {kVersion6, kVersionBits, 0, 0};
constexpr Needs kProto = {kHasProto, kHasProto, 0, 0};
constexpr Needs kPorts = {kHasPorts, kHasPorts, 0, 0};
constexpr Needs kIcmp = {kHasIcmp, kHasIcmp, 0, 0};
constexpr Needs ports_of(uint64_t proto) {
  return {kHasPorts | proto << 48, kHasPorts | kProtoBits, 0, 0};
}

// A number of up to 32 bits inside of a word, or whole bytes in memory order.
struct KnownField {
  const char* name;
  uint32_t word;
  uint32_t bit;
  uint32_t bits;
  bool bytes;
  Needs needs;
};
constexpr KnownField kFields[] = {
    {"eth.src", kMacSrcWord, 0, 48, true, kEther},
    {"eth.dst", kMacDstWord, 0, 48, true, kEther},
    {"eth.type", kLinkWord, 0, 16, false, kEther},
    {"vlan.id", kLinkWord, 16, 12, false, kVlan},
    {"vlan.pcp", kLinkWord, 29, 3, false, kVlan},
    {"mpls.label", kMplsWord, 12, 20, false, kMpls},
    {"mpls.tc", kMplsWord, 9, 3, false, kMpls},
    {"mpls.ttl", kMplsWord, 0, 8, false, kMpls},
    {"ip.version", kFlowWord, 56, 4, false, kIp},
    {"ip.proto", kFlowWord, 48, 8, false, kProto},
    {"ip.src", kIp4Word, 0, 32, true, kIp4},
    {"ip.dst", kIp4Word, 32, 32, true, kIp4},
    {"ip6.src", kIp6Word, 0, 128, true, kIp6},
    {"ip6.dst", kIp6Word + 2, 0, 128, true, kIp6},
    {"ip.tos", kLinkWord, 32, 8, false, kIp4},
    {"ip6.tclass", kLinkWord, 32, 8, false, kIp6},
    {"ip.dscp", kLinkWord, 34, 6, false, kIp},
    {"ip.ttl", kLinkWord, 40, 8, false, kIp},
    {"ip.fragment", kFlowWord, 63, 1, false, kIp},
    {"l4.sport", kFlowWord, 0, 16, false, kPorts},
    {"l4.dport", kFlowWord, 16, 16, false, kPorts},
    {"tcp.sport", kFlowWord, 0, 16, false, ports_of(kProtoTcp)},
    {"tcp.dport", kFlowWord, 16, 16, false, ports_of(kProtoTcp)},
    {"tcp.flags", kLinkWord, 48, 8, false, ports_of(kProtoTcp)},
    {"udp.sport", kFlowWord, 0, 16, false, ports_of(kProtoUdp)},
    {"udp.dport", kFlowWord, 16, 16, false, ports_of(kProtoUdp)},
    {"sctp.sport", kFlowWord, 0, 16, false, ports_of(kProtoSctp)},
    {"sctp.dport", kFlowWord, 16, 16, false, ports_of(kProtoSctp)},
    {"icmp.type", kFlowWord, 8, 8, false, kIcmp},
    {"icmp.code", kFlowWord, 0, 8, false, kIcmp},
    {"packet.len", kFlowWord, 32, 16, false, kNothing},
};

std::string known_names() {
  std::string names;
  for (const KnownField& field : kFields) names += std::string(field.name) + " ";
  return names + "raw.OFFSET.SIZE meta.NAME";
}

// "OFFSET.SIZE"; false where it is none that there can be.
bool read_raw(const std::string& text, uint32_t& offset, uint32_t& size) {
  const size_t dot = text.find('.');
  if (dot == 0 || dot > 4 || dot == std::string::npos) return false;
  const std::string after = text.substr(dot + 1);
  if (after.empty() || after.size() > 2) return false;
  const auto digits = [](char c) { return (c >= '0' && c <= '9') || c == '.'; };
  if (!std::all_of(text.begin(), text.end(), digits)) return false;
  if (after.find('.') != std::string::npos) return false;
  offset = static_cast<uint32_t>(std::stoul(text.substr(0, dot)));
  size = static_cast<uint32_t>(std::stoul(after));
  return offset <= kMaxFieldOffset && size >= 1 && size <= kMaxWideBytes;
}

bool is_text(const Args& args) { return std::holds_alternative<std::string>(args.value()); }

uint64_t load_word(const uint8_t* from) {
  uint64_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

// Of bytes in network order.
uint64_t number_of(const uint8_t* bytes, uint32_t size) {
  uint64_t number = 0;
  for (uint32_t i = 0; i < size; ++i) number = number << 8 | bytes[i];
  return number;
}

uint64_t low_bits(uint32_t bits) { return bits == 0 ? 0 : ~0ULL >> (64 - std::min(bits, 64U)); }

// Value and mask of a term as bytes in network order, as many as hold the field's bits.
Status read_value(const Args& term, uint32_t bits, const std::string& where, uint8_t* value,
                  uint8_t* mask) {
  const std::string& value_bin = term["value_bin"].as_string();
  const std::string& mask_bin = term["mask_bin"].as_string();
  const uint32_t size = (bits + 7) / 8;
  const uint64_t most = low_bits(bits);
  if (!value_bin.empty() || !mask_bin.empty() || bits > 64) {
    if (value_bin.size() != size || (!mask_bin.empty() && mask_bin.size() != size)) {
      return Status::invalid(where + ": value_bin and mask_bin must have " + std::to_string(size) +
                             (size == 1 ? " byte" : " bytes"));
    }
    std::memcpy(value, value_bin.data(), size);
    std::memset(mask, 0xff, size);
    if (mask_bin.find_first_not_of('\0') != std::string::npos) {
      std::memcpy(mask, mask_bin.data(), size);
    } else if (bits < 64) {
      put_uint(mask, size, most);
    }
    if (bits < 64 && ((number_of(value, size) | number_of(mask, size)) & ~most) != 0) {
      return Status::invalid(where + ": value_bin and mask_bin must fit " + std::to_string(bits) +
                             " bits");
    }
  } else {
    const uint64_t number = term["value"].as_uint();
    uint64_t mask_number = term["mask"].as_uint();
    if (mask_number == 0) mask_number = most;
    if (is_text(term["value"]) || is_text(term["mask"]) || number > most || mask_number > most) {
      return Status::invalid(where + ": value and mask must be numbers up to " +
                             std::to_string(most));
    }
    put_uint(value, size, number);
    put_uint(mask, size, mask_number);
  }
  for (uint32_t i = 0; i < size; ++i) {
    if ((value[i] & ~mask[i]) != 0) {
      return Status::invalid(where + ": value has bits outside mask and could never match");
    }
  }
  return {};
}

}  // namespace

uint64_t range_bits(uint16_t low, uint16_t high) {
  const auto differ = static_cast<uint32_t>(low ^ high);
  return differ == 0 ? 0xffff
                     : 0xffff & ~low_bits(32 - static_cast<uint32_t>(__builtin_clz(differ)));
}

bool MatchTests::require(uint32_t word, uint64_t value, uint64_t mask) {
  if (mask == 0) return true;
  Bits& bits = words[word];
  const bool clash = ((bits.value ^ value) & bits.mask & mask) != 0;
  bits.value |= value;
  bits.mask |= mask;
  return !clash;
}

Status MatchFields::add_attr(const std::string& name, uint64_t size, const std::string& where,
                             const std::function<size_t(uint32_t)>& declare) {
  if (name.empty()) return Status::invalid(where + ": an attribute has no name");
  if (size < 1 || size > kMaxWideBytes) {
    return Status::invalid(where + ": size of '" + name + "' is " + std::to_string(size) +
                           "; must be 1 to " + std::to_string(kMaxWideBytes) + " bytes");
  }
  const auto bytes = static_cast<uint32_t>(size);
  const uint32_t pos = attr_bytes_ % 8 + bytes <= 8 ? attr_bytes_ : (attr_bytes_ + 7) / 8 * 8;
  if (pos + bytes > kMaxAttrWords * 8) {
    return Status::invalid(where + ": no room for '" + name + "'; all attributes together have " +
                           "at most " + std::to_string(kMaxAttrWords * 8) + " bytes");
  }
  attrs_.push_back({name, bytes, pos, declare(bytes)});
  attr_bytes_ = pos + bytes;
  return {};
}

const MatchFields::Attr* MatchFields::find_attr(const std::string& name) const {
  for (const Attr& attr : attrs_) {
    if (attr.name == name) return &attr;
  }
  return nullptr;
}

std::string MatchFields::attr_of(const std::string& field) {
  return field.compare(0, 5, "meta.") == 0 ? field.substr(5) : "";
}

Status MatchFields::find(const std::string& name, const std::string& where,
                         FieldPlace& place) const {
  for (const KnownField& known : kFields) {
    if (name != known.name) continue;
    place.word = known.word;
    place.bit = known.bit;
    place.bits = known.bits;
    place.bytes = known.bytes;
    place.needs = known.needs;
    return {};
  }
  place.bytes = true;
  const std::string attr_name = attr_of(name);
  if (!attr_name.empty()) {
    const Attr* attr = find_attr(attr_name);
    if (attr == nullptr) {
      return Status::invalid(where + ": attribute '" + attr_name +
                             "' was not named when the module was made; list it in `meta`");
    }
    place.word = kAttrWord + attr->pos / 8;
    place.bit = attr->pos % 8 * 8;
    place.bits = attr->size * 8;
    return {};
  }
  if (name.compare(0, 4, "raw.") == 0) {
    uint32_t offset = 0;
    uint32_t size = 0;
    if (!read_raw(name.substr(4), offset, size)) {
      return Status::invalid(where + ": '" + name + "' is no field; must be raw.OFFSET.SIZE, " +
                             "with an offset up to " + std::to_string(kMaxFieldOffset) +
                             " and 1 to " + std::to_string(kMaxWideBytes) + " bytes");
    }
    place.word = kRawWord + offset / 8;
    place.bit = offset % 8 * 8;
    place.bits = size * 8;
    place.raw_end = offset + size;
    return {};
  }
  return Status::invalid(where + ": no field '" + name + "'; known are " + known_names());
}

Status MatchFields::read_range(const Args& term, const FieldPlace& place, const std::string& where,
                               MatchTests& tests, bool& good) {
  const Args& range = term["range"];
  const uint64_t low = range["min"].as_uint();
  const uint64_t high = range["max"].as_uint();
  const std::string& name = term["field"].as_string();
  const uint32_t part = place.bit / 16;
  if (place.word != kFlowWord || place.bits != 16) {
    return Status::invalid(where + ": '" + name + "' can't have a range; ports and packet.len can");
  }
  if (term["value"].as_uint() != 0 || term["mask"].as_uint() != 0 ||
      !term["value_bin"].as_string().empty() || !term["mask_bin"].as_string().empty()) {
    return Status::invalid(where + ": has a range and a value; must have one of them");
  }
  if (!range["min_bin"].as_string().empty() || !range["max_bin"].as_string().empty()) {
    return Status::invalid(where + ": range: min_bin and max_bin are for sets");
  }
  if (high > 0xffff || is_text(range["min"]) || is_text(range["max"])) {
    return Status::invalid(where + ": range: min and max must be numbers up to 65535");
  }
  if (low > high) {
    return Status::invalid(where + ": range: min is " + std::to_string(low) + " and max " +
                           std::to_string(high) + "; min must not be above max");
  }
  tests.low[part] = std::max(tests.low[part], static_cast<uint16_t>(low));
  tests.high[part] = std::min(tests.high[part], static_cast<uint16_t>(high));
  // Implied by the range, and what tables tell rules apart by.
  const uint64_t mask = range_bits(static_cast<uint16_t>(low), static_cast<uint16_t>(high));
  good &= tests.require(kFlowWord, (low & mask) << place.bit, mask << place.bit);
  return {};
}

// What a packet needs to have the field is asked for besides: a value that isn't there is in no
// set.
Status MatchFields::read_set(const Args& term, const MatchSets* sets, const std::string& where,
                             MatchTests& tests, bool& good) {
  const std::string& name = term["set"].as_string();
  const MatchSets::Test* const test = sets == nullptr ? nullptr : sets->find(name);
  if (test == nullptr) return Status::invalid(where + ": there is no set '" + name + "'");
  const std::string& field = sets->fields()[test->field].name;
  if (term["field"].as_string() != field) {
    return Status::invalid(where + ": set '" + name + "' is of " + field);
  }
  if (term["value"].as_uint() != 0 || term["mask"].as_uint() != 0 || term.has("range") ||
      !term["value_bin"].as_string().empty() || !term["mask_bin"].as_string().empty()) {
    return Status::invalid(where + ": has a set and a value or range; must have one of them");
  }
  good &= tests.require(test->word, test->value, test->mask);
  return {};
}

Status MatchFields::read(const Args::List& terms, const MatchSets* sets, const std::string& where,
                         MatchTests& tests) const {
  uint32_t ranged = 0;  // parts with a range, and with anything else
  uint32_t plain = 0;
  for (size_t t = 0; t < terms.size(); ++t) {
    const Args& term = terms[t];
    const std::string at = where + ".terms[" + std::to_string(t) + "]";
    FieldPlace place;
    Status status = find(term["field"].as_string(), at, place);
    if (!status.ok()) return status;
    const bool has_set = !term["set"].as_string().empty();
    const bool has_range = term.has("range");
    const bool ranges = !has_set && place.word == kFlowWord && place.bit < 48;
    const uint32_t part = ranges ? 1u << place.bit / 16 : 0;
    if (((has_range ? plain | ranged : ranged) & part) != 0) {
      return Status::invalid(at + ": overlaps a term of this rule for the same field; a field " +
                             "with a range must be named once");
    }
    (has_range ? ranged : plain) |= part;
    bool good = tests.require(kFlowWord, place.needs.value, place.needs.mask) &&
                tests.require(kLinkWord, place.needs.link, place.needs.link) &&
                tests.require(kMplsWord, place.needs.mpls, place.needs.mpls);
    if (has_set) {
      status = read_set(term, sets, at, tests, good);
    } else if (has_range) {
      status = read_range(term, place, at, tests, good);
    } else {
      uint8_t value[kMaxWideBytes];
      uint8_t mask[kMaxWideBytes];
      status = read_value(term, place.bits, at, value, mask);
      if (status.ok() && place.bytes) {
        uint8_t words[2][kMaxWideBytes + 8] = {};
        std::memcpy(words[0] + place.bit / 8, value, place.bits / 8);
        std::memcpy(words[1] + place.bit / 8, mask, place.bits / 8);
        for (uint32_t w = 0; w < 3; ++w) {
          good &= tests.require(place.word + w, load_word(words[0] + size_t{8} * w),
                                load_word(words[1] + size_t{8} * w));
        }
      } else if (status.ok()) {
        const uint32_t bytes = (place.bits + 7) / 8;
        good &= tests.require(place.word, number_of(value, bytes) << place.bit,
                              number_of(mask, bytes) << place.bit);
      }
    }
    if (!status.ok()) return status;
    if (place.raw_end != 0) {
      tests.low[kLengthPart] =
          std::max(tests.low[kLengthPart], static_cast<uint16_t>(place.raw_end));
    }
    if (!good || tests.low[kLengthPart] > tests.high[kLengthPart]) {
      return Status::invalid(at + " contradicts an earlier term: the rule could never match");
    }
  }
  return {};
}

void MatchFields::add_parts(uint32_t word, uint32_t column,
                            std::vector<RuleIndex::Part>& parts) const {
  const size_t before = parts.size();
  const auto add = [&](uint32_t bit, uint32_t bits) {
    parts.push_back({column, low_bits(bits) << bit});
  };
  if (word == kFlowWord) {
    for (uint32_t part = 0; part < 4; ++part) add(16 * part, 16);
  } else if (word == kLinkWord) {
    for (const uint32_t bit : {0, 16}) add(bit, 16);
    for (const uint32_t bit : {32, 40, 48, 56}) add(bit, 8);
  } else if (word == kIp4Word) {
    for (const uint32_t bit : {0, 32}) add(bit, 32);
  } else if (word >= kAttrWord && word < kRawWord) {
    for (const Attr& attr : attrs_) {
      if (attr.size < 8 && kAttrWord + attr.pos / 8 == word) add(attr.pos % 8 * 8, attr.size * 8);
    }
  }
  if (parts.size() == before) parts.push_back({column, ~0ULL});
}

}  // namespace e2
