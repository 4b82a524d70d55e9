// SPDX-License-Identifier: BSD-3-Clause
#include "modules/header_encryptor.h"

#include "host/module.h"
#include "modules/embark_text.h"

namespace e2 {
namespace {

constexpr uint32_t kOuterBytes = kEthernetBytes + kIpv6Bytes;
constexpr uint32_t kMaxTrailer = 255;

// Bytes of the Destination Options header.
constexpr uint32_t option_bytes(uint32_t text_len, bool sealed) {
  return kTextAt + text_len + (sealed ? kSealBytes : 0);
}

uint64_t word64(const uint8_t* from) {
  uint64_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}
uint32_t word32(const uint8_t* from) {
  uint32_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}
uint16_t word16(const uint8_t* from) {
  uint16_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}
void put64(uint8_t* to, uint64_t word) { std::memcpy(to, &word, sizeof word); }

// What takes a 16-bit word out of a sum.
uint64_t without(uint16_t word) { return static_cast<uint16_t>(~word); }

uint64_t pseudo_of(uint32_t bytes, uint8_t protocol) {
  return __builtin_bswap32(bytes) + __builtin_bswap16(protocol);
}

// Whether the checksum of an IPv4 header without options is what a sender writes: right, and not
// the other representation of zero.
bool ipv4_checksum_plain(const uint8_t* ip) {
  // In loads no wider than the stores of whoever changed a field just now.
  const uint64_t start = word64(ip);
  const uint16_t checksum = word16(ip + 10);
  const uint64_t sum = (start >> 32) + (start & 0xffffffff) + word16(ip + 8) +
                       (uint32_t{checksum} << 16) + word32(ip + 12) + word32(ip + 16);
  return ones_fold(sum) == 0xffff && checksum != 0xffff;
}

bool is_sealed(const uint8_t* seal) { return seal != nullptr && seal[0] != 0; }

}  // namespace

// A group has texts of one length: one of another length has to wait until that group is done.
inline EncryptGroup& HeaderEncryptor::room_for(bool ipv6, uint32_t text_len) {
  EncryptGroup& group = ipv6 ? ipv6_ : ipv4_;
  if (group.count != 0 && group.text_len != text_len) {
    if (ipv6) {
      encrypt<true>(group);
    } else {
      encrypt<false>(group);
    }
    group.count = 0;
  }
  if (group.count == 0) group.common = true;
  group.text_len = text_len;
  return group;
}

// A text's nonce, and what is authenticated with it.
inline void HeaderEncryptor::name(EncryptGroup& group, uint32_t i, Nonce nonce) const {
  const EncryptItem& item = group.items[i];
  const uint64_t flags = item.shape.flags;
  group.texts.set_nonce(i, nonce.start, nonce.end, static_cast<uint8_t>(group.text_len));
  set_named(group.texts, i,
            uint64_t{kWireVersion << 4} | flags | uint64_t{plan_.epoch} << 8 |
                uint64_t{item.shape.protocol} << 16,
            (flags & kFlagBound) != 0 ? item.seal : nullptr);
}

// TCP or UDP in a whole packet without options, extensions and tags: most of all packets.
template <bool kIpv6>
inline bool HeaderEncryptor::prepare_common(Packet& packet, const uint8_t* seal, uint32_t i,
                                            Nonce nonce) {
  constexpr uint32_t kAt = kEthernetBytes + (kIpv6 ? kIpv6Bytes : kIpv4Bytes);
  constexpr uint32_t kTextBytes = kIpv6 ? kText6.bytes : kText4.bytes;
  uint8_t* const frame = packet.data();
  const uint32_t len = packet.len();
  uint8_t* const ip = frame + kEthernetBytes;
  uint8_t* const body = frame + kAt;
  CommonBody found;
  if (!find_common_body<kIpv6>(frame, len, found)) return false;
  const uint32_t body_len = found.len;
  const uint32_t trailer = len - kAt - body_len;
  const bool sealed = is_sealed(seal);
  const uint32_t new_len = kOuterBytes + option_bytes(kTextBytes, sealed);
  const bool fits =
      new_len - kEthernetBytes + body_len <= frame_.mtu && packet.headroom() + kAt >= new_len;
  const bool clear_header = !sealed || (seal[2] | seal[3]) != 0;
  if (trailer > kMaxTrailer || !fits || !clear_header) return false;
  if (!kIpv6 && !ipv4_checksum_plain(ip)) return false;

  EncryptGroup& group = kIpv6 ? ipv6_ : ipv4_;
  if (group.text_len != kTextBytes) return false;
  const bool tcp = found.protocol == kProtoTcp;
  const uint64_t ports = word32(body);
  const uint16_t checksum = word16(body + (tcp ? 16 : 6));
  const auto kind = static_cast<uint64_t>(tcp ? BodyKind::kTcp : BodyKind::kUdp);
  const uint64_t flags = sealed ? kFlagSealed | uint64_t{frame_.bound} : 0;
  const uint64_t protocol = found.protocol;
  const uint32_t first = load_be32(ip);
  const uint64_t traffic_class = (kIpv6 ? first >> 20 : first >> 16) & 0xff;
  EncryptItem& item = group.items[i];
  item.packet = &packet;
  item.body = body;
  item.seal = seal;
  item.sum = ones_of_long(body + 4, body_len - 4) + without(checksum) +
             pseudo_of(body_len, found.protocol);
  put64(reinterpret_cast<uint8_t*>(&item.shape),
        body_len | kind << 16 | flags << 24 | protocol << 32 | traffic_class << 40 |
            uint64_t{ip[kIpv6 ? 7 : 8]} << 48 | uint64_t{1} << 56);

  const size_t at = i * kAesBlock;
  const uint64_t last = ports | protocol << 32 | uint64_t{kIpv6 ? 6 : 4} << 40;
  CcmBatch& texts = group.texts;
  if (kIpv6) {
    const uint64_t src[2] = {word64(ip + 8), word64(ip + 16)};
    const uint64_t dst[2] = {word64(ip + 24), word64(ip + 32)};
    const uint64_t head =
        __builtin_bswap32(uint32_t{kTextIpv6} << 28 | (first & 0xfffff) << 8 | trailer);
    put64(texts.text[0] + at, head | src[0] << 32);
    put64(texts.text[0] + at + 8, src[0] >> 32 | src[1] << 32);
    put64(texts.text[1] + at, src[1] >> 32 | dst[0] << 32);
    put64(texts.text[1] + at + 8, dst[0] >> 32 | dst[1] << 32);
    put64(texts.text[2] + at, dst[1] >> 32 | ports << 32);
    put64(texts.text[2] + at + 8, checksum);
    std::memcpy(group.tuples[0] + at, src, sizeof src);
    std::memcpy(group.tuples[1] + at, dst, sizeof dst);
    put64(group.tuples[2] + at, last);
    put64(group.tuples[2] + at + 8, 0);
  } else {
    const uint64_t src = word32(ip + 12);
    const uint64_t dst = word32(ip + 16);
    const uint64_t dont_fragment = ip[6] >> 6;
    const uint64_t head = (dont_fragment * kTextDontFragment) << 4 | uint64_t{trailer} << 8 |
                          uint64_t{word16(ip + 4)} << 16;
    put64(texts.text[0] + at, head | src << 32);
    put64(texts.text[0] + at + 8, dst | ports << 32);
    put64(texts.text[1] + at, checksum);
    put64(texts.text[1] + at + 8, 0);
    put64(group.tuples[0] + at, src | dst << 32);
    put64(group.tuples[0] + at + 8, last);
    group.clear4[0][i] = __builtin_bswap32(static_cast<uint32_t>(src));
    group.clear4[1][i] = __builtin_bswap32(static_cast<uint32_t>(dst));
  }
  const uint32_t both = __builtin_bswap32(static_cast<uint32_t>(ports));
  group.ports[0][i] = both >> 16;
  group.ports[1][i] = both & 0xffff;
  name(group, i, nonce);
  return true;
}

// Fields that few packets have; false where there is no room for them.
bool HeaderEncryptor::add_extras(const uint8_t* frame, const Headers& h, const Body& body,
                                 uint8_t* text, uint32_t at, uint32_t& end) const {
  ExtraWriter extras(text, at);
  const uint32_t tags = h.l2_len - kEthernetBytes;
  const uint8_t* const ip = frame + h.l3_off;
  if (tags != 0) extras.add(Extra::kVlanTags, frame + 12, tags);
  if (h.ip_version == 4) {
    const uint32_t options = h.l3_len - kIpv4Bytes;
    if (options != 0) extras.add(Extra::kIpv4Options, ip + kIpv4Bytes, options);
    const auto difference = static_cast<uint16_t>(load_be16(ip + 10) - ipv4_checksum(ip, h.l3_len));
    if (difference != 0) {
      if (uint8_t* const to = extras.add(Extra::kIpv4Checksum, 2)) store_be16(to, difference);
    }
    if ((load_be16(ip + 6) & ~0x4000U) != 0) extras.add(Extra::kIpv4Fragment, ip + 6, 2);
  } else if (body.extensions != 0) {
    if (uint8_t* const to = extras.add(Extra::kIpv6Extensions, body.extensions + 1U)) {
      to[0] = ip[6];
      std::memcpy(to + 1, ip + kIpv6Bytes, body.extensions);
    }
  }
  if (extras.at() > at) text[0] |= kTextExtras << 4;
  end = extras.at();
  return !extras.full();
}

// A checksum that covers all of a body is computed anew, whatever the old one was: the old one is
// in the text. Of the first piece of a datagram only what changes is known.
void HeaderEncryptor::set_sum(EncryptItem& item, const Headers& h, uint32_t ports) const {
  const uint32_t at = body_checksum_at(item.shape.kind);
  item.shape.summed = at != 0;
  if (!item.shape.summed) return;
  const uint16_t checksum = word16(item.body + at);
  const bool piece = (item.shape.flags & kFlagFragment) != 0;
  if (!piece) {
    item.sum = ones_of_long(item.body, item.shape.len) + without(checksum);
    if (item.shape.protocol != kProtoIcmp)
      item.sum += pseudo_of(item.shape.len, item.shape.protocol);
  } else {
    item.shape.summed = checksum != 0 || item.shape.kind == BodyKind::kTcp;
    item.sum = without(checksum);
    const uint8_t* const addresses = item.packet->data() + h.l3_off + (h.ip_version == 4 ? 12 : 8);
    const size_t bytes = h.ip_version == 4 ? 8 : 32;
    for (size_t at = 0; at < bytes; at += 2) item.sum += without(word16(addresses + at));
  }
  item.sum += without(static_cast<uint16_t>(ports)) + without(static_cast<uint16_t>(ports >> 16));
}

void HeaderEncryptor::seal_body(EncryptGroup& group, EncryptItem& item, const Body& body) {
  Seal seal = {1, plan_.epoch, {}, {}, {}};
  store_be16(seal.clear, body.clear);
  nonces_.take(1).next().write(seal.nonce);
  uint8_t* const text = item.body + body.clear;
  gcm_seal(plan_.keys->payload, seal.nonce, &seal.present, Seal::kAuthenticated, text, text,
           body.len - uint32_t{body.clear}, seal.tag);
  uint8_t* const kept = group.seals[group.count];
  std::memcpy(kept, &seal, sizeof seal);
  item.seal = kept;
  item.shape.flags =
      static_cast<uint8_t>((item.shape.flags & ~kFlagSealed) | kFlagSealedHere | frame_.bound);
}

[[gnu::noinline]] Refusal HeaderEncryptor::prepare_any(Packet& packet, const uint8_t* seal,
                                                       Nonce nonce) {
  uint8_t* const frame = packet.data();
  const uint32_t len = packet.len();
  Headers h;
  parse_any_headers(frame, len, h);
  if (h.ip_version == 0) return ip_is_cut(h) ? Refusal::kMalformed : Refusal::kNotIp;
  Body body = find_body(frame, len, h);
  const bool ipv6 = h.ip_version == 6;
  const uint32_t ip_end = uint32_t{body.off} + body.len;
  if (body.kind == BodyKind::kNone || len - ip_end > kMaxTrailer) return Refusal::kMalformed;
  const bool sealed = is_sealed(seal);
  // Sealed from the start: what it looks like is chance.
  if (sealed && load_be16(seal + 2) == 0 && body.kind != BodyKind::kPiece) {
    body.kind = BodyKind::kOpaque;
    body.clear = 0;
  }
  if (body.kind == BodyKind::kLink) return Refusal::kLocal;
  const bool must_seal = body.kind == BodyKind::kOpaque || body.kind == BodyKind::kError;
  const bool seal_here = must_seal && !sealed && body.len > body.clear;

  const TextLayout& layout = ipv6 ? kText6 : kText4;
  uint8_t* const ip = frame + h.l3_off;
  uint8_t text[kMaxText] = {};
  uint32_t text_len;
  if (!add_extras(frame, h, body, text, layout.bytes, text_len)) return Refusal::kTooManyHeaders;
  text_len = layout.bytes + (text_len - layout.bytes + 7) / 8 * 8;
  const uint32_t option = option_bytes(text_len, sealed || seal_here);
  const uint32_t new_len = kOuterBytes + option + (body.fragment ? kFragmentBytes : 0);
  if (new_len - kEthernetBytes + body.len > frame_.mtu) return Refusal::kTooBig;
  if (packet.headroom() + body.off < new_len) return Refusal::kTooManyHeaders;

  EncryptGroup& group = room_for(ipv6, text_len);
  group.common = false;
  const uint32_t i = group.count;
  EncryptItem& item = group.items[i];
  item.packet = &packet;
  item.body = frame + body.off;
  item.shape.len = body.len;
  item.seal = seal;
  item.shape.kind = body.kind;
  item.shape.flags = static_cast<uint8_t>((sealed ? kFlagSealed | frame_.bound : 0) |
                                          (body.fragment ? kFlagFragment : 0));
  item.shape.protocol = body.protocol;
  item.shape.traffic_class = ipv6 ? static_cast<uint8_t>(load_be16(ip) >> 4) : ip[1];
  item.shape.hop_limit = ipv6 ? ip[7] : ip[8];
  if (seal_here) seal_body(group, item, body);

  uint32_t ports = 0;
  if (has_ports(body.kind)) ports = word32(item.body);
  if (body.kind == BodyKind::kQuery) ports = word16(item.body + 4);
  set_sum(item, h, ports);
  if (ipv6) {
    const uint32_t label = load_be32(ip) & 0xfffff;
    text[0] = static_cast<uint8_t>((text[0] & 0xf0) | kTextIpv6 << 4 | label >> 16);
    store_be16(text + 1, static_cast<uint16_t>(label));
  } else {
    if ((ip[6] & 0x40) != 0) text[0] |= kTextDontFragment << 4;
    std::memcpy(text + 2, ip + 4, 2);
  }
  const uint8_t* const addresses = ip + (ipv6 ? 8 : 12);
  text[layout.trailer] = static_cast<uint8_t>(len - ip_end);
  std::memcpy(text + layout.src, addresses, 2 * size_t{layout.address_bytes});
  std::memcpy(text + layout.ports, &ports, sizeof ports);
  const uint32_t checksum_at = body_checksum_at(body.kind);
  if (checksum_at != 0) std::memcpy(text + layout.checksum, item.body + checksum_at, 2);

  // All pieces of a datagram are one flow, and not all have ports.
  const uint32_t flow_ports = body.fragment ? 0 : ports;
  const uint64_t last = flow_ports | uint64_t{body.protocol} << 32 | uint64_t{h.ip_version} << 40;
  if (ipv6) {
    std::memcpy(group.tuples[0] + i * kAesBlock, addresses, kAesBlock);
    std::memcpy(group.tuples[1] + i * kAesBlock, addresses + kAesBlock, kAesBlock);
    put64(group.tuples[2] + i * kAesBlock, last);
    put64(group.tuples[2] + i * kAesBlock + 8, 0);
  } else {
    std::memcpy(group.tuples[0] + i * kAesBlock, addresses, 8);
    put64(group.tuples[0] + i * kAesBlock + 8, last);
    group.clear4[0][i] = load_be32(addresses);
    group.clear4[1][i] = load_be32(addresses + 4);
  }
  group.ports[0][i] = __builtin_bswap16(static_cast<uint16_t>(ports));
  group.ports[1][i] = __builtin_bswap16(static_cast<uint16_t>(ports >> 16));
  if (body.fragment && ipv6) {
    item.fragment = load_be16(item.body - 6);
    item.fragment_id = load_be32(item.body - 4);
  } else if (body.fragment) {
    const uint16_t field = load_be16(ip + 6);
    item.fragment = static_cast<uint16_t>(field << 3 | (field & 0x2000) >> 13);
    item.fragment_id = load_be16(ip + 4);
  }
  group.texts.put_text(i, text, text_len);
  name(group, i, nonce);
  ++group.count;
  return Refusal::kNone;
}

void HeaderEncryptor::encrypt(Batch& batch, int seal_place, Refusal* refusals) {
  NonceRun nonces = nonces_.take(batch.size);
  uint32_t count4 = 0;
  uint32_t count6 = 0;
  for (uint32_t i = 0; i < batch.size; ++i) {
    Packet& packet = *batch[i];
    const uint8_t* const seal = seal_place == kNoOffset ? nullptr : packet.metadata(seal_place);
    const Nonce nonce = nonces.next();
    refusals[i] = Refusal::kNone;
    if (prepare_common<false>(packet, seal, count4, nonce)) {
      ++count4;
    } else if (prepare_common<true>(packet, seal, count6, nonce)) {
      ++count6;
    } else {
      ipv4_.count = count4;
      ipv6_.count = count6;
      refusals[i] = prepare_any(packet, seal, nonce);
      count4 = ipv4_.count;
      count6 = ipv6_.count;
    }
  }
  ipv4_.count = count4;
  ipv6_.count = count6;
  if (count4 != 0) encrypt<false>(ipv4_);
  if (count6 != 0) encrypt<true>(ipv6_);
}

}  // namespace e2
