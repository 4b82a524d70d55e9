// SPDX-License-Identifier: BSD-3-Clause
// Header parsing. See headers.h for the rules.
#include "host/headers.h"

namespace e2 {
namespace {

constexpr uint32_t kVlanBytes = 4;
constexpr uint32_t kMaxFrame = 0xffff;

constexpr uint8_t kHopByHop = 0;
constexpr uint8_t kRouting = 43;
constexpr uint8_t kAuthentication = 51;
constexpr uint8_t kMobility = 135;
constexpr uint8_t kHostIdentity = 139;
constexpr uint8_t kShim6 = 140;

bool is_vlan(uint16_t type) {
  return type == kEtherVlan || type == kEtherQinq || type == kEtherQinqOld;
}

bool is_extension(uint8_t proto) {
  switch (proto) {
    case kHopByHop:
    case kRouting:
    case kProtoFragment:
    case kAuthentication:
    case kProtoDestinationOptions:
    case kMobility:
    case kHostIdentity:
    case kShim6:
      return true;
    default:
      return false;
  }
}

uint32_t extension_bytes(uint8_t proto, const uint8_t* header) {
  if (proto == kProtoFragment) return kFragmentBytes;
  if (proto == kAuthentication) return (header[1] + 2u) * 4;
  return (header[1] + 1u) * 8;
}

uint16_t u16(uint32_t value) { return static_cast<uint16_t>(value); }

bool parse_l2(const uint8_t* data, uint32_t len, Headers& h) {
  if (len < kEthernetBytes) return false;
  uint32_t off = kEthernetBytes;
  uint16_t type = load_be16(data + 12);
  for (uint32_t tags = 0; is_vlan(type) && tags < kMaxVlanTags; tags++) {
    if (len < off + kVlanBytes) return false;
    if (!h.has_vlan) h.vlan_tci = load_be16(data + off);
    h.has_vlan = true;
    type = load_be16(data + off + 2);
    off += kVlanBytes;
  }
  h.l2_len = u16(off);
  h.ether_type = type;
  return true;
}

// Sets the payload to what follows IP; `end` is where the datagram or the frame ends.
void set_payload(Headers& h, uint32_t off, uint32_t end) {
  h.payload_off = u16(off);
  h.payload_len = u16(end - off);
}

void parse_l4(const uint8_t* data, uint32_t off, uint32_t end, Headers& h) {
  const uint8_t* l4 = data + off;
  uint32_t room = end - off;
  uint32_t header = 0;
  switch (h.ip_proto) {
    case kProtoTcp:
      if (room < 20) return;
      h.tcp_flags = l4[13];
      header = (l4[12] >> 4) * 4u;
      break;
    case kProtoUdp: {
      if (room < 8) return;
      header = 8;
      uint32_t claimed = load_be16(l4 + 4);
      if (claimed < 8) claimed = 8;
      if (claimed < room) end = off + claimed;
      break;
    }
    case kProtoSctp:
      if (room < 12) return;
      header = 12;
      break;
    case kProtoIcmp:
    case kProtoIcmpv6:
      if (room < 8) return;
      header = 8;
      break;
    case kProtoNoNext:
      return;
    default:
      break;
  }
  h.l4_off = u16(off);
  if (h.ip_proto == kProtoTcp || h.ip_proto == kProtoUdp || h.ip_proto == kProtoSctp) {
    h.sport = load_be16(l4);
    h.dport = load_be16(l4 + 2);
  }
  if (h.ip_proto == kProtoTcp && (header < 20 || header > room)) return;
  set_payload(h, off + header, end);
}

void parse_ipv4(const uint8_t* data, uint32_t len, Headers& h) {
  uint32_t off = h.l2_len;
  if (len - off < kIpv4Bytes) return;
  const uint8_t* ip = data + off;
  uint32_t header = (ip[0] & 0x0fu) * 4;
  if (ip[0] >> 4 != 4 || header < kIpv4Bytes || header > len - off) return;
  h.ip_version = 4;
  h.l3_off = u16(off);
  h.l3_len = u16(header);
  h.ip_proto = ip[9];
  h.ip_total_len = load_be16(ip + 2);
  uint16_t frag = load_be16(ip + 6);
  h.fragment = (frag & 0x1fff) != 0;
  h.more_fragments = (frag & 0x2000) != 0;
  if (h.ip_total_len < header) return;
  uint32_t end = off + h.ip_total_len;
  if (end > len) end = len;
  if (h.fragment) {
    set_payload(h, off + header, end);
  } else {
    parse_l4(data, off + header, end, h);
  }
}

void parse_ipv6(const uint8_t* data, uint32_t len, Headers& h) {
  uint32_t start = h.l2_len;
  if (len - start < kIpv6Bytes || data[start] >> 4 != 6) return;
  uint32_t total = load_be16(data + start + 4) + kIpv6Bytes;
  h.ip_version = 6;
  h.l3_off = u16(start);
  h.ip_total_len = u16(total > kMaxFrame ? kMaxFrame : total);
  uint32_t end = start + total;
  if (end > len) end = len;
  uint8_t proto = data[start + 6];
  uint32_t off = start + kIpv6Bytes;
  for (uint32_t count = 0; is_extension(proto) && !h.fragment; count++) {
    if (count == kMaxExtensions || end - off < 8) return;
    const uint8_t* header = data + off;
    uint32_t bytes = extension_bytes(proto, header);
    if (bytes > end - off) return;
    if (proto == kProtoFragment) {
      uint16_t frag = load_be16(header + 2);
      h.fragment = (frag & 0xfff8) != 0;
      h.more_fragments = (frag & 1) != 0;
    }
    proto = header[0];
    off += bytes;
  }
  h.ip_proto = proto;
  h.l3_len = u16(off - start);
  if (h.fragment) {
    set_payload(h, off, end);
  } else {
    parse_l4(data, off, end, h);
  }
}

}  // namespace

void parse_any_headers(const uint8_t* data, uint32_t len, Headers& h) {
  if (len > kMaxFrame) len = kMaxFrame;
  if (!parse_l2(data, len, h)) return;
  if (h.ether_type == kEtherIpv4) parse_ipv4(data, len, h);
  if (h.ether_type == kEtherIpv6) parse_ipv6(data, len, h);
}

uint32_t ipv6_extension_bytes(uint8_t proto, const uint8_t* header) {
  return is_extension(proto) ? extension_bytes(proto, header) : 0;
}

const uint8_t* ipv6_final_destination(const uint8_t* packet, uint32_t l3_off, uint32_t l4_off) {
  const uint8_t* ip = packet + l3_off;
  const uint8_t* header = ip + kIpv6Bytes;
  const uint8_t* l4 = packet + l4_off;
  uint8_t proto = ip[6];
  while (header < l4 && is_extension(proto)) {
    uint32_t bytes = extension_bytes(proto, header);
    if (proto == kRouting && header[3] > 0 && bytes >= 24) {
      constexpr uint8_t kSegmentRouting = 4;
      if (header[2] == kSegmentRouting) return header + 8;
      if (header[2] == 0 || header[2] == 2) return header + size_t{(bytes - 8) / 16} * 16 - 8;
    }
    proto = header[0];
    header += bytes;
  }
  return ip + 24;
}

}  // namespace e2
