// SPDX-License-Identifier: BSD-3-Clause
// Headers: where the protocol headers of a frame are and what they say, found in one bounded pass.
//
// It knows Ethernet II with up to 8 stacked VLAN tags (0x8100, 0x88a8, 0x9100), IPv4 with options,
// IPv6 with up to 8 extension headers, TCP, UDP, SCTP, ICMP and ICMPv6. Nothing in a frame is
// trusted: no read passes the end of the frame or the end that the IP header claims, and a field
// whose header is cut short, or breaks its own rules, stays zero.
//
// | the frame                              | what parse_headers returns                        |
// |----------------------------------------|---------------------------------------------------|
// | ends inside the Ethernet or VLAN header| l2_len 0, ether_type 0                            |
// | not IP, or its fixed IP header is cut  | ip_version 0, l3_off 0                            |
// | IPv4 with IHL < 5 or cut options       | ip_version 0, l3_off 0                            |
// | IP length smaller than the IP header   | l3_len set, l4_off 0, payload_off 0               |
// | IPv6 chain cut or longer than 8        | ip_version 6, ip_proto 0, l3_len 0, l4_off 0      |
// | a fragment that is not the first       | fragment true, l4_off 0, payload after IP         |
// | L4 header cut                          | l4_off 0, payload_off 0                           |
// | TCP data offset < 5 or past the end    | l4_off, ports and flags set, payload_off 0        |
// | an L4 protocol that is not known       | l4_off == payload_off, right after IP             |
//
// payload_len counts only bytes that are in the frame; Ethernet padding is never payload.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "host/checksum.h"

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

constexpr uint16_t kEtherIpv4 = 0x0800;
constexpr uint16_t kEtherArp = 0x0806;
constexpr uint16_t kEtherVlan = 0x8100;
constexpr uint16_t kEtherQinq = 0x88a8;
constexpr uint16_t kEtherQinqOld = 0x9100;
constexpr uint16_t kEtherIpv6 = 0x86dd;
constexpr uint32_t kEthernetBytes = 14;  // without tags
constexpr uint32_t kIpv4Bytes = 20;      // without options
constexpr uint32_t kIpv6Bytes = 40;      // without extension headers
constexpr uint32_t kFragmentBytes = 8;
constexpr uint32_t kUdpBytes = 8;
constexpr uint8_t kProtoIcmp = 1;
constexpr uint8_t kProtoTcp = 6;
constexpr uint8_t kProtoUdp = 17;
constexpr uint8_t kProtoFragment = 44;
constexpr uint8_t kProtoIcmpv6 = 58;
constexpr uint8_t kProtoNoNext = 59;
constexpr uint8_t kProtoDestinationOptions = 60;
constexpr uint8_t kProtoSctp = 132;
constexpr uint32_t kMaxVlanTags = 8;
constexpr uint32_t kMaxExtensions = 8;

inline uint16_t load_be16(const void* from) {
  uint16_t value;
  std::memcpy(&value, from, sizeof value);
  return __builtin_bswap16(value);
}
inline uint32_t load_be32(const void* from) {
  uint32_t value;
  std::memcpy(&value, from, sizeof value);
  return __builtin_bswap32(value);
}
inline uint64_t load_be64(const void* from) {
  uint64_t value;
  std::memcpy(&value, from, sizeof value);
  return __builtin_bswap64(value);
}
inline void store_be16(void* to, uint16_t value) {
  value = __builtin_bswap16(value);
  std::memcpy(to, &value, sizeof value);
}
inline void store_be32(void* to, uint32_t value) {
  value = __builtin_bswap32(value);
  std::memcpy(to, &value, sizeof value);
}
inline void store_be64(void* to, uint64_t value) {
  value = __builtin_bswap64(value);
  std::memcpy(to, &value, sizeof value);
}

// Both MAC addresses, in registers: moved by way of memory, they would wait for their own stores.
struct MacPair {
  uint64_t head;  // the destination, and the first 2 bytes of the source
  uint32_t tail;
};
inline MacPair load_macs(const uint8_t* ether) {
  MacPair macs;
  std::memcpy(&macs.head, ether, sizeof macs.head);
  std::memcpy(&macs.tail, ether + sizeof macs.head, sizeof macs.tail);
  return macs;
}
inline void store_macs(uint8_t* ether, const MacPair& macs) {
  std::memcpy(ether, &macs.head, sizeof macs.head);
  std::memcpy(ether + sizeof macs.head, &macs.tail, sizeof macs.tail);
}

// Fields that are alike in most packets come first: filling one in takes few stores.
struct Headers {
  uint16_t l2_len = 0;      // Ethernet header with its VLAN tags
  uint16_t ether_type = 0;  // host order, innermost after VLAN
  uint16_t vlan_tci = 0;    // outermost, host order
  bool has_vlan = false;
  uint8_t ip_version = 0;       // 0, 4, 6
  bool fragment = false;        // a fragment other than the first: it has no L4 header
  bool more_fragments = false;  // the datagram goes on in another fragment
  uint16_t l3_off = 0;
  uint16_t l3_len = 0;   // IP header incl. options or extensions
  uint16_t l4_off = 0;   // 0 if none
  uint8_t ip_proto = 0;  // final, after IPv6 extensions
  uint8_t tcp_flags = 0;
  uint16_t payload_off = 0;
  uint16_t payload_len = 0;
  uint16_t ip_total_len = 0;  // as claimed: IPv4 total length, IPv6 payload length + 40 (capped)
  uint16_t sport = 0;         // host order; TCP, UDP and SCTP
  uint16_t dport = 0;
};

// Any frame, field by field, into a new Headers; parse_headers() calls it where its short cuts
// don't hold.
void parse_any_headers(const uint8_t* data, uint32_t len, Headers& h);

// The same, field by field into registers: a copy of the whole would keep the caller's fields in
// memory on the short cuts too.
inline void parse_uncommon_headers(const uint8_t* data, uint32_t len, Headers& h) {
  Headers any;
  parse_any_headers(data, len, any);
  h.l2_len = any.l2_len;
  h.ether_type = any.ether_type;
  h.vlan_tci = any.vlan_tci;
  h.has_vlan = any.has_vlan;
  h.ip_version = any.ip_version;
  h.ip_proto = any.ip_proto;
  h.fragment = any.fragment;
  h.more_fragments = any.more_fragments;
  h.l3_off = any.l3_off;
  h.l4_off = any.l4_off;
  h.payload_off = any.payload_off;
  h.payload_len = any.payload_len;
  h.sport = any.sport;
  h.dport = any.dport;
  h.tcp_flags = any.tcp_flags;
  h.l3_len = any.l3_len;
  h.ip_total_len = any.ip_total_len;
}

// Untagged IPv4 without options, whole, over TCP or UDP: a handful of compares. False, and nothing
// is set, for all else.
inline bool parse_common_headers(const uint8_t* data, uint32_t len, Headers& h) {
  constexpr uint32_t kL4 = 34;
  if (len < kL4 + 8 || len > 0xffff) return false;
  const uint32_t type_and_version = load_be32(data + 12) >> 8;
  const uint32_t fragment = load_be16(data + 20) & 0x3fff;
  if (type_and_version != 0x080045 || fragment != 0) return false;
  const uint32_t total = load_be16(data + 16);
  const uint8_t proto = data[23];
  uint32_t end = total + 14 < len ? total + 14 : len;
  uint32_t payload = 0;
  if (proto == kProtoUdp) {
    if (end < kL4 + 8) return false;
    payload = kL4 + 8;
    uint32_t claimed = load_be16(data + kL4 + 4);
    if (claimed < 8) claimed = 8;
    if (kL4 + claimed < end) end = kL4 + claimed;
  } else if (proto == kProtoTcp) {
    if (end < kL4 + 20) return false;
    const uint32_t header = (data[kL4 + 12] >> 4) * 4u;
    payload = kL4 + header;
    if (header < 20 || payload > end) return false;
    h.tcp_flags = data[kL4 + 13];
  } else {
    return false;
  }
  h.l2_len = 14;
  h.ether_type = kEtherIpv4;
  h.ip_version = 4;
  h.ip_proto = proto;
  h.l3_off = 14;
  h.l3_len = 20;
  h.ip_total_len = static_cast<uint16_t>(total);
  h.l4_off = kL4;
  h.sport = load_be16(data + kL4);
  h.dport = load_be16(data + kL4 + 2);
  h.payload_off = static_cast<uint16_t>(payload);
  h.payload_len = static_cast<uint16_t>(end - payload);
  return true;
}

// Untagged IPv6 over TCP or UDP, bare or behind one Destination Options header, as encrypted
// packets are. False, and nothing is set, for all else.
inline bool parse_common_ipv6(const uint8_t* data, uint32_t len, Headers& h) {
  constexpr uint32_t kStart = kEthernetBytes + kIpv6Bytes;
  if (len < kStart + 8 || len > 0xffff) return false;
  if ((load_be32(data + 12) >> 8 & 0xfffff0) != 0x86dd60) return false;
  const uint32_t total = load_be16(data + 18) + kIpv6Bytes;
  uint32_t end = kEthernetBytes + total < len ? kEthernetBytes + total : len;
  uint32_t off = kStart;
  uint8_t proto = data[20];
  if (proto == kProtoDestinationOptions) {
    proto = data[kStart];
    off += (data[kStart + 1] + 1u) * 8;
  }
  uint32_t payload = off + 8;
  if (payload > end) return false;
  if (proto == kProtoUdp) {
    uint32_t claimed = load_be16(data + off + 4);
    if (claimed < 8) claimed = 8;
    if (off + claimed < end) end = off + claimed;
  } else if (proto == kProtoTcp) {
    if (off + 20 > end) return false;
    const uint32_t header = (data[off + 12] >> 4) * 4u;
    payload = off + header;
    if (header < 20 || payload > end) return false;
    h.tcp_flags = data[off + 13];
  } else {
    return false;
  }
  h.l2_len = kEthernetBytes;
  h.ether_type = kEtherIpv6;
  h.ip_version = 6;
  h.ip_proto = proto;
  h.l3_off = kEthernetBytes;
  h.l3_len = static_cast<uint16_t>(off - kEthernetBytes);
  h.ip_total_len = static_cast<uint16_t>(total < 0xffff ? total : 0xffff);
  h.l4_off = static_cast<uint16_t>(off);
  h.sport = load_be16(data + off);
  h.dport = load_be16(data + off + 2);
  h.payload_off = static_cast<uint16_t>(payload);
  h.payload_len = static_cast<uint16_t>(end - payload);
  return true;
}

// Inline, so that a module pays only for the fields that it reads. Keep the result in a variable
// that is not const: g++ 12 keeps a const one in memory, every field of it.
inline Headers parse_headers(const uint8_t* data, uint32_t len) {
  Headers h;
  if (!parse_common_headers(data, len, h) && !parse_common_ipv6(data, len, h)) {
    parse_uncommon_headers(data, len, h);
  }
  return h;
}

// The same for modules that look no further than IP: behind l3_len, fields may be left at zero.
inline Headers parse_ip_headers(const uint8_t* data, uint32_t len) {
  Headers h;
  if (len >= 34 && load_be32(data + 12) >> 8 == 0x080045) {
    h.l2_len = 14;
    h.ether_type = kEtherIpv4;
    h.ip_version = 4;
    h.l3_off = 14;
    h.l3_len = 20;
  } else if (!parse_common_ipv6(data, len, h)) {
    parse_uncommon_headers(data, len, h);
  }
  return h;
}

// The same for modules that want the fixed IP header alone: behind l3_off, fields may be left at
// zero.
inline Headers find_ip(const uint8_t* data, uint32_t len) {
  Headers h;
  const uint32_t type_and_version = len < 34 ? 0 : load_be32(data + 12) >> 8;
  const bool ipv4 = type_and_version == 0x080045;
  if (ipv4 || ((type_and_version & 0xfffff0) == 0x86dd60 && len >= kEthernetBytes + kIpv6Bytes)) {
    h.l2_len = kEthernetBytes;
    h.ether_type = ipv4 ? kEtherIpv4 : kEtherIpv6;
    h.ip_version = ipv4 ? 4 : 6;
    h.l3_off = kEthernetBytes;
  } else {
    parse_uncommon_headers(data, len, h);
  }
  return h;
}

// Whether a frame in which no IP header was found should have one: it ends too early, or its type
// says IP.
inline bool ipv4_is_cut(const Headers& h) { return h.l2_len == 0 || h.ether_type == kEtherIpv4; }
inline bool ip_is_cut(const Headers& h) { return ipv4_is_cut(h) || h.ether_type == kEtherIpv6; }

// How many bytes an IPv6 extension header has, of which the first 2 must be there; 0 where the
// number is of something else.
uint32_t ipv6_extension_bytes(uint8_t proto, const uint8_t* header);

// The destination of an IPv6 packet as its receiver sees it: behind a routing header with segments
// left, the last stop is there and not in the fixed header.
const uint8_t* ipv6_final_destination(const uint8_t* packet, uint32_t l3_off, uint32_t l4_off);

// Whether a packet is on its way to another stop of a routing header.
inline bool ipv6_goes_elsewhere(const uint8_t* packet, uint32_t l3_off, uint32_t l4_off) {
  const uint8_t* const ip = packet + l3_off;
  // No extension header, or nothing but options, is what most have.
  const bool options = ip[6] == kProtoDestinationOptions &&
                       l3_off + kIpv6Bytes + (ip[kIpv6Bytes + 1] + 1U) * 8 == l4_off;
  if (l3_off + kIpv6Bytes == l4_off || options) return false;
  return ipv6_final_destination(packet, l3_off, l4_off) != ip + 24;
}

// Where the checksum field of TCP, UDP, ICMP or ICMPv6 is; 0 where the checksum cannot be known: no
// such header, any fragment, or lengths that disagree.
inline uint32_t l4_checksum_off(const Headers& h) {
  if (h.l4_off == 0 || h.payload_off == 0 || h.fragment || h.more_fragments) return 0;
  const uint32_t ip_end = static_cast<uint32_t>(h.l3_off) + h.ip_total_len;
  const uint32_t payload_end = static_cast<uint32_t>(h.payload_off) + h.payload_len;
  if (payload_end > ip_end) return 0;
  const bool to_the_end = payload_end == ip_end;
  switch (h.ip_proto) {
    case kProtoTcp:
      return to_the_end ? h.l4_off + 16u : 0;
    case kProtoUdp:
      return h.l4_off + 6u;  // may end before IP does; l4_checksum compares its own length
    case kProtoIcmp:
      return to_the_end && h.ip_version == 4 ? h.l4_off + 2u : 0;
    case kProtoIcmpv6:
      return to_the_end && h.ip_version == 6 ? h.l4_off + 2u : 0;
    default:
      return 0;
  }
}

// The sum over pseudo header and segment without the checksum field, which is at `field`.
inline uint64_t l4_ones_sum(const uint8_t* packet, const Headers& h, uint32_t field) {
  const uint32_t bytes = h.payload_off - h.l4_off + h.payload_len;
  uint16_t present;
  std::memcpy(&present, packet + field, sizeof present);
  uint64_t sum = ones_add_bytes(0, packet + h.l4_off, bytes);
  // The field lies in a whole word of the sum: taking it out there is exact.
  sum -= static_cast<uint64_t>(present) << (field - h.l4_off) % 4 * 8;
  const uint8_t* ip = packet + h.l3_off;
  if (h.ip_version == 6) {
    sum += __builtin_bswap32(bytes) + __builtin_bswap16(h.ip_proto);
    sum = ones_add_bytes(sum, ip + 8, 16);
    sum = ones_add_bytes(sum, ipv6_final_destination(packet, h.l3_off, h.l4_off), 16);
  } else if (h.ip_proto != kProtoIcmp) {
    sum += __builtin_bswap32(bytes) + __builtin_bswap16(h.ip_proto);
    sum = ones_add_bytes(sum, ip + 12, 8);
  }
  return sum;
}

// What belongs in that field, for store_be16; what the field holds now does not matter. 0 where it
// cannot be known.
inline uint16_t l4_checksum(const uint8_t* packet, const Headers& h) {
  const uint32_t off = l4_checksum_off(h);
  if (off == 0) return 0;
  if (h.ip_proto == kProtoUdp && load_be16(packet + h.l4_off + 4) != h.payload_len + 8) return 0;
  const auto value = static_cast<uint16_t>(~ones_fold(l4_ones_sum(packet, h, off)));
  return value == 0 && h.ip_proto == kProtoUdp ? 0xffff : value;
}

// Whether the field is right. A UDP checksum of 0 over IPv4 means none and is right, as is every
// packet whose checksum cannot be computed.
inline bool l4_checksum_ok(const uint8_t* packet, const Headers& h) {
  const uint32_t off = l4_checksum_off(h);
  if (off == 0) return true;
  if (h.ip_proto == kProtoUdp) {
    if (load_be16(packet + h.l4_off + 4) != h.payload_len + 8) return true;
    if (load_be16(packet + off) == 0) return h.ip_version == 4;
  }
  return checksum_fold(ones_fold(l4_ones_sum(packet, h, off)) + load_be16(packet + off)) == 0;
}

}  // namespace e2
#pragma GCC visibility pop
