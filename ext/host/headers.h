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

namespace e2 {

constexpr uint16_t kEtherIpv4 = 0x0800;
constexpr uint16_t kEtherArp = 0x0806;
constexpr uint16_t kEtherVlan = 0x8100;
constexpr uint16_t kEtherQinq = 0x88a8;
constexpr uint16_t kEtherQinqOld = 0x9100;
constexpr uint16_t kEtherIpv6 = 0x86dd;
constexpr uint8_t kProtoIcmp = 1;
constexpr uint8_t kProtoTcp = 6;
constexpr uint8_t kProtoUdp = 17;
constexpr uint8_t kProtoIcmpv6 = 58;
constexpr uint8_t kProtoNoNext = 59;
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

struct Headers {
  uint16_t l2_len = 0;      // Ethernet header with its VLAN tags
  uint16_t ether_type = 0;  // host order, innermost after VLAN
  uint16_t vlan_tci = 0;    // outermost, host order
  bool has_vlan = false;
  uint8_t ip_version = 0;       // 0, 4, 6
  uint8_t ip_proto = 0;         // final, after IPv6 extensions
  bool fragment = false;        // a fragment other than the first: it has no L4 header
  bool more_fragments = false;  // the datagram goes on in another fragment
  uint16_t l3_off = 0;
  uint16_t l4_off = 0;  // 0 if none
  uint16_t payload_off = 0;
  uint16_t payload_len = 0;
  uint16_t sport = 0;  // host order; TCP, UDP and SCTP
  uint16_t dport = 0;
  uint8_t tcp_flags = 0;
  uint16_t l3_len = 0;        // IP header incl. options or extensions
  uint16_t ip_total_len = 0;  // as claimed: IPv4 total length, IPv6 payload length + 40 (capped)
};

Headers parse_headers(const uint8_t* data, uint32_t len);

// The Internet checksum in two steps. checksum_add sums big-endian 16-bit words; every piece but
// the last must have an even length. checksum_fold gives the complement, ready for store_be16. Over
// a region that includes its own right checksum it gives 0.
uint32_t checksum_add(const void* data, size_t len, uint32_t sum = 0);
uint16_t checksum_fold(uint32_t sum);

// What belongs in the packet's TCP, UDP, ICMP or ICMPv6 checksum field, for store_be16; what the
// field holds now does not matter. 0 where it cannot be known: no such header, any fragment, or
// lengths that disagree (see l4_checksum_off).
uint16_t l4_checksum(const uint8_t* packet, const Headers& headers);
// Where that field is; 0 where l4_checksum cannot compute it.
uint32_t l4_checksum_off(const Headers& headers);
// Whether the field is right. A UDP checksum of 0 over IPv4 means none and is right, as is every
// packet whose checksum cannot be computed.
bool l4_checksum_ok(const uint8_t* packet, const Headers& headers);

// A flow's identity. IPv4 addresses take the first 4 bytes, the rest is zero. No padding.
struct FiveTuple {
  uint8_t src[16];
  uint8_t dst[16];
  uint16_t sport;  // host order; 0 without ports (ICMP, fragments other than the first)
  uint16_t dport;
  uint8_t proto;
  uint8_t version;
};
static_assert(sizeof(FiveTuple) == 38, "compared as bytes");

inline bool operator==(const FiveTuple& a, const FiveTuple& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}
inline bool operator!=(const FiveTuple& a, const FiveTuple& b) { return !(a == b); }

// False where the packet is not IP; the tuple is then all zero.
bool flow_key(const uint8_t* packet, const Headers& headers, FiveTuple& key);
uint64_t flow_hash(const FiveTuple& key);

}  // namespace e2
