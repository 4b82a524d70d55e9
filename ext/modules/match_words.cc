// SPDX-License-Identifier: BSD-3-Clause
#include "modules/match_words.h"

#include <algorithm>

#include "host/headers.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

constexpr uint32_t kNoColumn = UINT32_MAX;
constexpr uint16_t kEtherMpls = 0x8847;
constexpr uint16_t kEtherMplsMulticast = 0x8848;

uint64_t length_bits(uint32_t len) {
  return static_cast<uint64_t>(len < 0xffff ? len : 0xffff) << 32;
}

inline uint64_t flow_word(const uint8_t* data, uint32_t len, const Headers& h) {
  uint64_t word = length_bits(len) | static_cast<uint64_t>(h.ip_version) << 56;
  if (h.l3_len == 0) return word;
  word |= static_cast<uint64_t>(h.ip_proto) << 48 | kHasProto;
  if (h.fragment || h.more_fragments) word |= kIsFragment;
  if (h.l4_off == 0) return word;
  const uint8_t proto = h.ip_proto;
  if (proto == kProtoTcp || proto == kProtoUdp || proto == kProtoSctp) {
    word |= h.sport | static_cast<uint64_t>(h.dport) << 16 | kHasPorts;
  } else if (proto == (h.ip_version == 4 ? kProtoIcmp : kProtoIcmpv6)) {
    word |= load_be16(data + h.l4_off) | kHasIcmp;
  }
  return word;
}

inline uint64_t link_word(const uint8_t* data, const Headers& h) {
  uint64_t word = h.ether_type | static_cast<uint64_t>(h.vlan_tci) << 16 |
                  static_cast<uint64_t>(h.tcp_flags) << 48;
  if (h.l2_len != 0) word |= kHasEther;
  if (h.has_vlan) word |= kHasVlan;
  const uint8_t* ip = data + h.l3_off;
  if (h.ip_version == 4) {
    word |= static_cast<uint64_t>(ip[1]) << 32 | static_cast<uint64_t>(ip[8]) << 40;
  } else if (h.ip_version == 6) {
    const uint32_t traffic_class = load_be16(ip) >> 4 & 0xff;
    word |= static_cast<uint64_t>(traffic_class) << 32 | static_cast<uint64_t>(ip[7]) << 40;
  }
  return word;
}

inline uint64_t mpls_word(const uint8_t* data, uint32_t len, const Headers& h) {
  const bool labelled = h.ether_type == kEtherMpls || h.ether_type == kEtherMplsMulticast;
  if (!labelled || len < h.l2_len + 4u) return 0;
  return load_be32(data + h.l2_len) | kHasMpls;
}

// The 6 bytes of a MAC address.
inline uint64_t mac_word(const uint8_t* from) {
  uint64_t word = 0;
  copy_word(reinterpret_cast<uint8_t*>(&word), from, 6);
  return word;
}

}  // namespace

std::vector<uint32_t> MatchWords::sources(const std::vector<uint32_t>& words,
                                          const MatchSets* sets) {
  const auto has = [&words](uint32_t word) {
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  std::vector<uint32_t> found;
  if (sets == nullptr) return found;
  for (const MatchSets::Field& field : sets->fields()) {
    const auto tested = [&has](const MatchSets::Codes& codes) { return has(codes.word); };
    if (std::none_of(field.codes.begin(), field.codes.end(), tested)) continue;
    for (const uint32_t word : field.sources()) {
      if (!has(word)) found.push_back(word);
    }
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

MatchWords::MatchWords(std::vector<uint32_t> words, bool parses, const MatchFields& fields,
                       const std::shared_ptr<const MatchSets>& sets)
    : words_(std::move(words)), sources_(sources(words_, sets.get())), parses_(parses) {
  for (uint32_t w = 0; w < kHeaderWords; ++w) columns_[w] = column(w);
  std::vector<uint32_t> loaded = words_;
  loaded.insert(loaded.end(), sources_.begin(), sources_.end());
  for (uint32_t c = 0; c < loaded.size(); ++c) {
    const uint32_t word = loaded[c];
    if (word >= kRawWord) {
      raws_.push_back({c, (word - kRawWord) * 8});
    } else if (word >= kAttrWord && word < kSetWord) {
      bool first = true;
      for (const MatchFields::Attr& attr : fields.attrs()) {
        const uint32_t start = kAttrWord + attr.pos / 8;
        if (word != start && (word != start + 1 || attr.size <= 8)) continue;
        const uint32_t skip = word == start ? 0 : 8;
        attrs_.push_back(
            {c, attr.pos % 8 * 8, skip, std::min(attr.size - skip, 8u), attr.id, first});
        first = false;
      }
    }
  }
  if (sets != nullptr) {
    sets_ = sets;
    plan_set_fields(*sets);
  }
}

void MatchWords::plan_set_fields(const MatchSets& sets) {
  std::vector<uint32_t> begun;  // columns
  for (const MatchSets::Field& field : sets.fields()) {
    SetField planned = {&field, {}, {}};
    for (const MatchSets::Codes& codes : field.codes) {
      if (!has(codes.word)) continue;
      const uint32_t to = column(codes.word);
      const bool first = std::find(begun.begin(), begun.end(), to) == begun.end();
      planned.targets.push_back({to, codes.codes.data(), first});
      begun.push_back(to);
    }
    if (planned.targets.empty()) continue;
    const std::vector<uint32_t> words = field.sources();
    for (uint32_t w = 0; w < 3; ++w) {
      planned.sources[w] = column(words[std::min<size_t>(w, words.size() - 1)]);
    }
    set_fields_.push_back(std::move(planned));
  }
}

bool MatchWords::has(uint32_t word) const {
  return std::binary_search(words_.begin(), words_.end(), word);
}

uint32_t MatchWords::column(uint32_t word) const {
  for (const std::vector<uint32_t>* words : {&words_, &sources_}) {
    const auto at = std::find(words->begin(), words->end(), word);
    const auto before = words == &words_ ? 0 : words_.size();
    if (at != words->end()) return static_cast<uint32_t>(before + (at - words->begin()));
  }
  return kNoColumn;
}

void MatchWords::load(const Module& module, const Batch& batch, KeyBatch& keys) const {
  if (parses_) {
    load_headers(batch, keys);
  } else if (columns_[kFlowWord] != kNoColumn) {
    uint64_t* const column = keys.words[columns_[kFlowWord]];
    for (uint32_t i = 0; i < batch.size; ++i) column[i] = length_bits(batch[i]->len());
  }
  for (const Attr& attr : attrs_) load_attr(module, batch, attr, keys);
  for (const Raw& raw : raws_) load_raw(batch, raw, keys);
  for (const SetField& field : set_fields_) load_set_field(field, batch.size, keys);
  for (uint32_t c = 0; c < words_.size(); ++c) keys.pad(batch.size, c);
}

void MatchWords::load_headers(const Batch& batch, KeyBatch& keys) const {
  const auto column_of = [&](uint32_t word) {
    return columns_[word] == kNoColumn ? nullptr : keys.words[columns_[word]];
  };
  uint64_t* const flow = column_of(kFlowWord);
  uint64_t* const link = column_of(kLinkWord);
  uint64_t* const ip4 = column_of(kIp4Word);
  uint64_t* const mac_dst = column_of(kMacDstWord);
  uint64_t* const mac_src = column_of(kMacSrcWord);
  uint64_t* const mpls = column_of(kMplsWord);
  uint64_t* ip6[4];
  bool any6 = false;
  for (uint32_t w = 0; w < 4; ++w) {
    ip6[w] = column_of(kIp6Word + w);
    any6 |= ip6[w] != nullptr;
  }
  const uint32_t count = batch.size;
  for (uint32_t i = 0; i < count; ++i) {
    const uint8_t* const data = batch[i]->data();
    const uint32_t len = batch[i]->len();
    Headers h = parse_headers(data, len);
    if (flow != nullptr) flow[i] = flow_word(data, len, h);
    if (link != nullptr) link[i] = link_word(data, h);
    if (ip4 != nullptr) {
      uint64_t word = 0;
      if (h.ip_version == 4) std::memcpy(&word, data + h.l3_off + 12, sizeof word);
      ip4[i] = word;
    }
    if (any6) {
      uint64_t words[4] = {};
      if (h.ip_version == 6) std::memcpy(words, data + h.l3_off + 8, sizeof words);
      for (uint32_t w = 0; w < 4; ++w) {
        if (ip6[w] != nullptr) ip6[w][i] = words[w];
      }
    }
    if (mac_dst != nullptr) mac_dst[i] = h.l2_len == 0 ? 0 : mac_word(data);
    if (mac_src != nullptr) mac_src[i] = h.l2_len == 0 ? 0 : mac_word(data + 6);
    if (mpls != nullptr) mpls[i] = mpls_word(data, len, h);
  }
}

// Just the attribute's bytes: a wider load would wait for the store that wrote them.
void MatchWords::load_attr(const Module& module, const Batch& batch, const Attr& attr,
                           KeyBatch& keys) const {
  uint64_t* const column = keys.words[attr.column];
  const int place = module.attr_offset(attr.id);
  const uint32_t count = batch.size;
  const uint32_t shift = attr.shift;
  const uint32_t skip = attr.skip;
  const bool first = attr.first;
  with_size(place < 0 ? 0 : attr.size, [&](auto size) {
    for (uint32_t i = 0; i < count; ++i) {
      uint64_t word = 0;
      copy_word(reinterpret_cast<uint8_t*>(&word), batch[i]->metadata(0) + place + skip, size);
      column[i] = first ? word << shift : column[i] | word << shift;
    }
  });
}

void MatchWords::load_raw(const Batch& batch, const Raw& raw, KeyBatch& keys) {
  uint64_t* const column = keys.words[raw.column];
  for (uint32_t i = 0; i < batch.size; ++i) {
    const uint32_t len = batch[i]->len();
    uint64_t word = 0;
    if (raw.offset + 8 <= len) {
      std::memcpy(&word, batch[i]->data() + raw.offset, sizeof word);
    } else if (raw.offset < len) {
      std::memcpy(&word, batch[i]->data() + raw.offset, len - raw.offset);
    }
    column[i] = word;
  }
}

// The field's bits, from the upper end of two words on; what is behind them doesn't matter.
void MatchWords::load_set_field(const SetField& from, uint32_t count, KeyBatch& keys) {
  const FieldPlace& place = from.field->place;
  const uint64_t* const first = keys.words[from.sources[0]];
  uint64_t high[kMaxBatch];
  uint64_t low[kMaxBatch];
  if (!place.bytes) {
    const uint32_t up = 64 - place.bits;
    for (uint32_t i = 0; i < count; ++i) high[i] = first[i] >> place.bit << up;
  } else if (place.bit == 0 && from.field->bits <= 64) {
    for (uint32_t i = 0; i < count; ++i) high[i] = __builtin_bswap64(first[i]);
  } else {
    const uint64_t* const second = keys.words[from.sources[1]];
    const uint64_t* const third = keys.words[from.sources[2]];
    const uint32_t down = place.bit;
    for (uint32_t i = 0; i < count; ++i) {
      // Twice, as a shift by 64 is none.
      high[i] = __builtin_bswap64(first[i] >> down | second[i] << 1 << (63 - down));
      low[i] = __builtin_bswap64(second[i] >> down | third[i] << 1 << (63 - down));
    }
  }
  uint32_t places[kMaxBatch];
  from.field->find(high, low, count, places);
  for (const SetField::Target& target : from.targets) {
    uint64_t* const column = keys.words[target.column];
    const uint64_t* const codes = target.codes;
    if (target.first) {
      for (uint32_t i = 0; i < count; ++i) column[i] = codes[places[i]];
    } else {
      for (uint32_t i = 0; i < count; ++i) column[i] |= codes[places[i]];
    }
  }
}

}  // namespace e2
