// SPDX-License-Identifier: BSD-3-Clause
#include "modules/header_decryptor.h"

#include <algorithm>

#include "host/module.h"
#include "modules/checksum_change.h"

namespace e2 {
namespace {

constexpr size_t kMacsBytes = 12;
constexpr uint32_t kOuterBytes = kEthernetBytes + kIpv6Bytes;

// What an inbound packet of a NAT is about.
enum class Inbound : uint8_t { kNo, kKnown, kUnknown };

// What the provider wrote.
class Rewrites {
 public:
  Rewrites(const AddressPool& pool, const TextLayout& layout, uint8_t* text)
      : pool_(pool), layout_(layout), text_(text) {}

  // Whether a NAT, whose address the packet was sent to, has written an encrypted source there.
  Inbound find_return(const ReturnTable& returns, uint16_t now, const uint8_t* outer_ip,
                      BodyKind kind, uint8_t protocol) {
    if (!has_ports(kind) && kind != BodyKind::kQuery) return Inbound::kNo;
    const uint8_t* const outer = outer_ip + 24;
    if (pool_.find_encrypted(outer) != AddressPool::kNone) return Inbound::kNo;
    Address clear = {};
    const uint8_t* const dst = text_ + layout_.dst;
    if (layout_.address_bytes == 4) {
      clear = map_ipv4(load_be32(dst));
    } else {
      std::memcpy(clear.data(), dst, clear.size());
    }
    const uint32_t number = pool_.find_clear(clear.data());
    if (number == AddressPool::kNone || !pool_[number].nat) return Inbound::kNo;
    if (!returns.find(outer, protocol, now, flow_)) return Inbound::kUnknown;
    returned_ = flow_.ipv6 == (layout_.address_bytes == 16);
    return returned_ ? Inbound::kKnown : Inbound::kUnknown;
  }

  // Into the text; false where an address is neither the gateway's nor of the pool.
  bool take(const uint8_t* outer_ip, const uint8_t* body, BodyKind kind) {
    const bool query = kind == BodyKind::kQuery;
    for (size_t way = 0; way < 2; ++way) {
      const uint8_t* const outer = outer_ip + 8 + way * sizeof(Address);
      // A query has one number, whichever way it goes.
      uint8_t* const field = text_ + layout_.ports + (query ? 0 : 2 * way);
      if (way == 1 && returned_) {
        set_address(way, flow_.src);
        set_port(field, flow_.sport);
        continue;
      }
      // The number of a query that a NAT sends back is as the gateway wrote it: in clear.
      const uint32_t port = query && returned_ ? load_be16(field)
                            : has_ports(kind)  ? load_be16(body + 2 * way)
                            : query            ? load_be16(body + 4)
                                               : 0;
      const uint32_t number = pool_.find_encrypted(outer);
      if (number == AddressPool::kNone) {
        const uint32_t counted = query && way == 1 ? 0 : port;
        if (load_be16(text_ + layout_.checks + 2 * way) != address_check(outer, counted))
          return false;
        continue;
      }
      const AddressPool::Entry& entry = pool_[number];
      if (is_mapped_ipv4(entry.clear) != (layout_.address_bytes == 4)) return false;
      set_address(way, entry.clear.data() + sizeof(Address) - layout_.address_bytes);
      if (!entry.nat || !(has_ports(kind) || query)) continue;
      set_port(field, static_cast<uint16_t>(port));
    }
    return true;
  }

  // What new addresses add to the complement of a checksum.
  uint32_t address_change() const { return address_change_; }

  // What belongs in the body, whose checksum and ports the text has.
  void write(BodyKind kind, uint8_t protocol, uint8_t* body) const {
    const uint32_t at = body_checksum_at(kind);
    if (at != 0) std::memcpy(body + at, text_ + layout_.checksum, 2);
    const uint32_t change = port_change_ + (protocol == kProtoIcmp ? 0 : address_change_);
    if (at != 0 && change != 0 && kind == BodyKind::kUdp) update_udp_checksum(body + at, change);
    if (at != 0 && change != 0 && kind != BodyKind::kUdp) update_checksum(body + at, change);
    if (has_ports(kind)) std::memcpy(body, text_ + layout_.ports, 4);
    if (kind == BodyKind::kQuery) std::memcpy(body + 4, text_ + layout_.ports, 2);
  }

 private:
  void set_address(size_t way, const uint8_t* clear) {
    uint8_t* const address = text_ + (way == 0 ? layout_.src : layout_.dst);
    for (uint32_t at = 0; at < layout_.address_bytes; at += 2) {
      address_change_ += change16(load_be16(address + at), load_be16(clear + at));
    }
    std::memcpy(address, clear, layout_.address_bytes);
  }
  void set_port(uint8_t* field, uint16_t port) {
    port_change_ += change16(load_be16(field), port);
    store_be16(field, port);
  }

  const AddressPool& pool_;
  const TextLayout& layout_;
  uint8_t* const text_;
  ReturnTable::Flow flow_;
  bool returned_ = false;
  uint32_t address_change_ = 0;
  uint32_t port_change_ = 0;
};

}  // namespace

DecryptResult HeaderDecryptor::prepare(Packet& packet, Item& item) const {
  uint8_t* const frame = packet.data();
  const uint32_t len = packet.len();
  uint32_t l2_len = kEthernetBytes;
  if (len < kOuterBytes + kTextAt) return DecryptResult::kNotEncrypted;
  if (load_be16(frame + 12) != kEtherIpv6) {
    Headers h;
    parse_any_headers(frame, len, h);
    if (h.ip_version != 6 || len < h.l2_len + kIpv6Bytes + kTextAt) {
      return DecryptResult::kNotEncrypted;
    }
    l2_len = h.l2_len;
  }
  uint8_t* const ip = frame + l2_len;
  const uint8_t* const head = ip + kIpv6Bytes;
  const uint32_t payload = load_be16(ip + 4);
  const bool ours = ip[0] >> 4 == 6 && ip[6] == kProtoDestinationOptions &&
                    head[2] == kExperimentalOption && head[kOptionAt] >> 4 == kWireVersion;
  if (!ours) return DecryptResult::kNotEncrypted;
  const uint32_t option = (head[1] + 1U) * 8;
  if (l2_len + kIpv6Bytes + payload > len) return DecryptResult::kCut;
  item.flags = head[kOptionAt] & 0xf;
  item.epoch = head[kOptionAt + 1];
  const uint32_t seal = (item.flags & (kFlagSealed | kFlagSealedHere)) != 0 ? kSealBytes : 0;
  const uint32_t piece = (item.flags & kFlagFragment) != 0 ? kFragmentBytes : 0;
  if (payload < option + piece || head[3] + kOptionAt != option) return DecryptResult::kCut;
  // What isn't there can't be bound.
  if ((item.flags & kFlagBound) != 0 && seal == 0) return DecryptResult::kCut;
  if (option < kTextAt + seal + kText4.bytes || option > kTextAt + seal + kMaxText) {
    return DecryptResult::kCut;
  }
  if (returns_ != nullptr) returns_->prefetch(ip + 24);
  item.ip = ip;
  item.body = ip + kIpv6Bytes + option + piece;
  item.body_len = static_cast<uint16_t>(payload - option - piece);
  item.protocol = piece != 0 ? head[option] : head[0];
  item.head = head;
  item.text_len = static_cast<uint16_t>(option - kTextAt - seal);
  return plan_.keys.of[item.epoch] == nullptr ? DecryptResult::kUnknownEpoch : DecryptResult::kDone;
}

// Texts of one key and one length go together.
void HeaderDecryptor::open(uint32_t count, DecryptResult* results) {
  PacketMask left = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (results[i] == DecryptResult::kDone) left |= PacketMask{1} << i;
  }
  while (left != 0) {
    const Item& first = items_[__builtin_ctz(left)];
    uint8_t chosen[kMaxBatch];
    uint32_t number = 0;
    for (PacketMask rest = left; rest != 0; rest &= rest - 1) {
      const auto i = static_cast<uint32_t>(__builtin_ctz(rest));
      const Item& item = items_[i];
      if (item.text_len != first.text_len || item.epoch != first.epoch) continue;
      left &= ~(PacketMask{1} << i);
      const uint8_t* const head = item.head;
      uint64_t start;
      uint32_t end;
      std::memcpy(&start, head + kNonceAt, sizeof start);
      std::memcpy(&end, head + kNonceAt + sizeof start, sizeof end);
      batch_.set_nonce(number, start, end, static_cast<uint8_t>(item.text_len));
      const uint8_t* const seal = head + kTextAt + item.text_len;
      set_named(batch_, number,
                head[kOptionAt] | uint64_t{item.epoch} << 8 | uint64_t{item.protocol} << 16,
                (item.flags & kFlagBound) != 0 ? seal : nullptr);
      std::memcpy(batch_.tag(number), head + kTagAt, kCcmTagBytes);
      if (item.text_len == kText4.bytes) {
        batch_.put_text(number, head + kTextAt, kText4.bytes);
      } else if (item.text_len == kText6.bytes) {
        batch_.put_text(number, head + kTextAt, kText6.bytes);
      } else {
        batch_.put_text(number, head + kTextAt, item.text_len);
      }
      chosen[number++] = static_cast<uint8_t>(i);
    }
    const SiteKeys& keys = *plan_.keys.of[first.epoch];
    const uint32_t authentic = ccm_open(keys.header, batch_, number, first.text_len);
    for (uint32_t n = 0; n < number; ++n) {
      const uint32_t i = chosen[n];
      uint8_t nonce[kCcmNonceBytes];
      batch_.get_nonce(n, nonce);
      if ((authentic >> n & 1) == 0) {
        results[i] = DecryptResult::kBadTag;
      } else if (!guard_.is_new(nonce)) {
        results[i] = DecryptResult::kReplayed;
      } else if (first.text_len == kText4.bytes) {
        batch_.get_text(n, room_[i], kText4.bytes);
      } else {
        batch_.get_text(n, room_[i], first.text_len);
      }
    }
  }
}

void HeaderDecryptor::decrypt(Batch& batch, int seal_place, DecryptResult* results) {
  for (uint32_t i = 0; i < batch.size; ++i) results[i] = prepare(*batch[i], items_[i]);
  open(batch.size, results);
  for (uint32_t i = 0; i < batch.size; ++i) {
    if (results[i] != DecryptResult::kDone) continue;
    results[i] = restore(*batch[i], items_[i], room_[i], seal_place);
  }
}

// What PayloadOpen needs; or what nobody but the header's encryption sealed, opened here.
DecryptResult HeaderDecryptor::restore_seal(Packet& packet, const Item& item, const uint8_t* bytes,
                                            int seal_place) const {
  Seal seal = {};
  if ((item.flags & (kFlagSealed | kFlagSealedHere)) != 0) {
    std::memcpy(&seal, bytes, sizeof seal);
    // Or PayloadOpen would take the packet for one without a seal.
    if (seal.present != 1) return DecryptResult::kBadPayload;
  }
  if ((item.flags & kFlagSealedHere) != 0) {
    const SiteKeys* const keys = plan_.keys.of[seal.epoch].get();
    const uint32_t clear = load_be16(seal.clear);
    if (keys == nullptr) return DecryptResult::kUnknownEpoch;
    if (clear > item.body_len) return DecryptResult::kBadPayload;
    uint8_t* const text = item.body + clear;
    if (!gcm_open(keys->payload, seal.nonce, &seal.present, Seal::kAuthenticated, text, text,
                  item.body_len - clear, seal.tag)) {
      return DecryptResult::kBadPayload;
    }
    seal = {};
  }
  if (seal_place != kNoOffset) {
    std::memcpy(packet.metadata(seal_place), &seal, sizeof seal);
  } else if (seal.present != 0) {
    return DecryptResult::kNotOpened;
  }
  return DecryptResult::kDone;
}

DecryptResult HeaderDecryptor::restore(Packet& packet, const Item& item, uint8_t* text,
                                       int seal_place) {
  const uint32_t text_len = item.text_len;
  const bool ipv6 = (text[0] >> 4 & kTextIpv6) != 0;
  const TextLayout& layout = ipv6 ? kText6 : kText4;
  Extras extras;
  if (text_len < layout.bytes) return DecryptResult::kBadText;
  if ((text[0] >> 4 & kTextExtras) != 0 && !read_extras(text, layout.bytes, text_len, extras)) {
    return DecryptResult::kBadText;
  }
  const bool fragment = (item.flags & kFlagFragment) != 0;
  const uint32_t offset = fragment ? load_be16(item.body - 6) & 0xfff8U : 0;
  const uint8_t* const seal = item.body - (fragment ? kFragmentBytes : 0) - kSealBytes;
  const bool sealed = (item.flags & (kFlagSealed | kFlagSealedHere)) != 0;
  BodyStart start = {BodyKind::kOpaque, 0};
  if (!sealed || load_be16(seal + 2) != 0) {
    start =
        classify_body(item.body, item.body_len, item.protocol, ipv6 ? 6 : 4, fragment, offset == 0);
  }
  Rewrites rewrites(plan_.pools[item.epoch], layout, text);
  const Inbound inbound = returns_ == nullptr ? Inbound::kNo
                                              : rewrites.find_return(*returns_, now_, item.ip,
                                                                     start.kind, item.protocol);
  if (inbound == Inbound::kUnknown || !rewrites.take(item.ip, item.body, start.kind)) {
    return DecryptResult::kOutsidePool;
  }
  const DecryptResult result = restore_seal(packet, item, seal, seal_place);
  if (result != DecryptResult::kDone) return result;
  rewrites.write(start.kind, item.protocol, item.body);

  const uint32_t tags = extras.vlan_tags.size;
  const uint32_t ip_bytes = ipv6 ? kIpv6Bytes + std::max(extras.ipv6_extensions.size, 1U) - 1
                                 : kIpv4Bytes + extras.ipv4_options.size;
  // The outer header's fields before they are written over.
  const uint32_t first_word = load_be32(item.ip);
  const uint8_t hop_limit = item.ip[7];
  uint8_t* const ip = item.body - ip_bytes;
  uint8_t* const frame = ip - kEthernetBytes - tags;
  const auto outer_end = static_cast<uint32_t>(item.body + item.body_len - packet.data());
  packet.trim(packet.len() - outer_end);
  packet.adj(static_cast<uint32_t>(frame - packet.data()));
  std::memcpy(frame, macs_, kMacsBytes);
  if (tags != 0) std::memcpy(frame + 12, extras.vlan_tags.from, tags);
  store_be16(frame + 12 + tags, ipv6 ? kEtherIpv6 : kEtherIpv4);
  const auto traffic_class = static_cast<uint8_t>(first_word >> 20);
  if (ipv6) {
    write_ipv6(item, text, extras, traffic_class, hop_limit, ip);
  } else {
    write_ipv4(item, text, extras, rewrites.address_change(), traffic_class, hop_limit, ip);
  }
  const uint32_t trailer = text[layout.trailer];
  if (trailer != 0) {
    uint8_t* const end = packet.append(trailer);
    if (end != nullptr) std::memset(end, 0, trailer);
  }
  return DecryptResult::kDone;
}

void HeaderDecryptor::write_ipv4(const Item& item, const uint8_t* text, const Extras& extras,
                                 uint32_t address_change, uint8_t traffic_class, uint8_t hop_limit,
                                 uint8_t* ip) const {
  const uint32_t options = extras.ipv4_options.size;
  const uint32_t bytes = kIpv4Bytes + options;
  const uint32_t fragment = extras.has_fragment                       ? extras.ipv4_fragment
                            : (text[0] >> 4 & kTextDontFragment) != 0 ? 0x4000
                                                                      : 0;
  const uint64_t id = load_be16(text + 2);
  const uint64_t total = bytes + uint64_t{item.body_len};
  const uint64_t version = 0x40 | bytes / 4;
  const uint64_t start =
      version << 56 | uint64_t{traffic_class} << 48 | (total & 0xffff) << 32 | id << 16 | fragment;
  const uint64_t ttl_and_protocol = uint64_t{hop_limit} << 8 | item.protocol;
  uint64_t addresses;
  std::memcpy(&addresses, text + kText4.src, sizeof addresses);
  addresses = __builtin_bswap64(addresses);
  // From the words themselves: read back at once, they would have to wait for their stores.
  uint64_t sum = (start >> 32) + (start & 0xffffffff) + (addresses >> 32) +
                 (addresses & 0xffffffff) + ttl_and_protocol;
  if (options != 0) {
    std::memcpy(ip + kIpv4Bytes, extras.ipv4_options.from, options);
    for (uint32_t at = 0; at < options; at += 2) sum += load_be16(ip + kIpv4Bytes + at);
  }
  sum = (sum >> 32) + (sum & 0xffffffff);
  sum = (sum >> 16) + (sum & 0xffff);
  uint16_t checksum = checksum_fold(static_cast<uint32_t>(sum));
  if (extras.ipv4_checksum != 0) {
    // It is told for the addresses that the gateway saw.
    const uint32_t folded = (address_change & 0xffff) + (address_change >> 16);
    const uint16_t change = static_cast<uint16_t>(~checksum_fold(folded));
    checksum = checksum_fold(static_cast<uint16_t>(~checksum) + change16(change, 0));
    checksum = static_cast<uint16_t>(checksum + extras.ipv4_checksum);
    checksum = checksum_fold(static_cast<uint16_t>(~checksum) + change);
  }
  store_be64(ip, start);
  store_be32(ip + 8, static_cast<uint32_t>(ttl_and_protocol << 16 | checksum));
  store_be64(ip + 12, addresses);
}

void HeaderDecryptor::write_ipv6(const Item& item, const uint8_t* text, const Extras& extras,
                                 uint8_t traffic_class, uint8_t hop_limit, uint8_t* ip) const {
  const Extras::Bytes& extensions = extras.ipv6_extensions;
  const uint32_t extension_bytes = extensions.size == 0 ? 0 : extensions.size - 1;
  const uint64_t label = load_be32(text) >> 8 & 0xfffff;
  const uint64_t payload = extension_bytes + uint64_t{item.body_len};
  const uint64_t next = extensions.size == 0 ? item.protocol : extensions.from[0];
  store_be64(ip, uint64_t{6} << 60 | uint64_t{traffic_class} << 52 | label << 32 |
                     (payload & 0xffff) << 16 | next << 8 | hop_limit);
  std::memcpy(ip + 8, text + kText6.src, 32);
  if (extension_bytes != 0) std::memcpy(ip + kIpv6Bytes, extensions.from + 1, extension_bytes);
}

}  // namespace e2
