// SPDX-License-Identifier: BSD-3-Clause
#include "modules/embark_wire.h"

namespace e2 {
namespace {

constexpr uint32_t kIcmpBytes = 8;

bool is_query(uint8_t protocol, uint8_t type) {
  if (protocol == kProtoIcmpv6) return type == 128 || type == 129;
  return type == 0 || type == 8 || (type >= 13 && type <= 18);
}

bool is_error(uint8_t protocol, uint8_t type) {
  if (protocol == kProtoIcmpv6) return type >= 1 && type <= 4;
  return (type >= 3 && type <= 5) || type == 11 || type == 12;
}

bool is_of_link(uint8_t protocol, uint8_t type) {
  return protocol == kProtoIcmpv6 && ((type >= 130 && type <= 137) || type == 143);
}

// IPv6: right behind the Fragment header, as far as receivers put pieces together. What follows,
// which may be sealed or be no header at all, isn't looked at.
bool find_fragment(const uint8_t* frame, uint32_t end, const Headers& h, Body& body) {
  uint32_t off = h.l3_off + kIpv6Bytes;
  uint8_t next = frame[h.l3_off + 6];
  for (uint32_t count = 0; count < kMaxExtensions && off + kFragmentBytes <= end; ++count) {
    const uint8_t* header = frame + off;
    const bool fragment = next == kProtoFragment;
    const uint32_t bytes = ipv6_extension_bytes(next, header);
    if (bytes == 0) return false;
    next = header[0];
    off += bytes;
    // An atomic fragment (RFC 6946) is a whole datagram.
    if (fragment && (load_be16(header + 2) & 0xfff9) != 0) {
      body.off = static_cast<uint16_t>(off);
      body.protocol = next;
      return true;
    }
  }
  return false;
}

}  // namespace

BodyStart classify_body(const uint8_t* bytes, uint32_t len, uint8_t protocol, uint8_t ip_version,
                        bool fragment, bool first) {
  if (protocol == kProtoTcp || protocol == kProtoUdp) {
    if (!first) return {BodyKind::kPiece, 0};
    if (protocol == kProtoTcp && len >= 20) {
      const uint32_t header = (bytes[12] >> 4) * 4U;
      if (header >= 20 && header <= len) return {BodyKind::kTcp, static_cast<uint16_t>(header)};
    }
    if (protocol == kProtoUdp && len >= 8 && (fragment || load_be16(bytes + 4) == len)) {
      return {BodyKind::kUdp, 8};
    }
    return {BodyKind::kOpaque, 0};
  }
  const uint8_t icmp = ip_version == 6 ? kProtoIcmpv6 : kProtoIcmp;
  if (protocol == icmp && !fragment && len >= kIcmpBytes) {
    if (is_query(protocol, bytes[0])) return {BodyKind::kQuery, kIcmpBytes};
    if (is_error(protocol, bytes[0])) return {BodyKind::kError, kIcmpBytes};
    if (is_of_link(protocol, bytes[0])) return {BodyKind::kLink, kIcmpBytes};
  }
  return {BodyKind::kOpaque, 0};
}

Body find_body(const uint8_t* frame, uint32_t len, const Headers& h) {
  Body body;
  const uint32_t end = uint32_t{h.l3_off} + h.ip_total_len;
  if (h.ip_version == 0 || end > len) return body;
  body.off = static_cast<uint16_t>(h.l3_off + h.l3_len);
  body.protocol = h.ip_proto;
  if (h.ip_version == 6) {
    body.fragment = find_fragment(frame, end, h, body);
    if (!body.fragment && h.l3_len == 0) return body;
    body.extensions = static_cast<uint16_t>(body.off - h.l3_off - kIpv6Bytes);
  } else {
    body.fragment = h.fragment || h.more_fragments;
  }
  if (end < body.off) return body;
  body.len = static_cast<uint16_t>(end - body.off);
  const BodyStart start = classify_body(frame + body.off, body.len, body.protocol, h.ip_version,
                                        body.fragment, !h.fragment);
  body.kind = start.kind;
  body.clear = start.clear;
  return body;
}

// Nothing of what doesn't leave a link.
SealedPart find_any_payload(const uint8_t* frame, uint32_t len) {
  Headers h;
  parse_any_headers(frame, len, h);
  const Body body = find_body(frame, len, h);
  const uint32_t clear = body.kind == BodyKind::kLink ? body.len : body.clear;
  return {uint32_t{body.off} + clear, uint32_t{body.off} + body.len, clear};
}

}  // namespace e2
