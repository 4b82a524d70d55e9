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

MatchWords::MatchWords(std::vector<uint32_t> words, bool parses, const MatchFields& fields)
    : words_(std::move(words)), parses_(parses) {
  for (uint32_t w = 0; w < kHeaderWords; ++w) columns_[w] = has(w) ? column(w) : kNoColumn;
  for (uint32_t c = 0; c < words_.size(); ++c) {
    const uint32_t word = words_[c];
    if (word >= kRawWord) {
      raws_.push_back({c, (word - kRawWord) * 8});
    } else if (word >= kAttrWord) {
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
}

bool MatchWords::has(uint32_t word) const {
  return std::binary_search(words_.begin(), words_.end(), word);
}

uint32_t MatchWords::column(uint32_t word) const {
  const auto at = std::lower_bound(words_.begin(), words_.end(), word);
  return static_cast<uint32_t>(at - words_.begin());
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

}  // namespace e2
