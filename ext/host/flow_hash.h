// SPDX-License-Identifier: BSD-3-Clause
// Flows: what identifies one, and numbers made from that.
//
// | hash         | for                                                                        |
// |--------------|----------------------------------------------------------------------------|
// | flow_hash()  | where a flow is served: alike on every server and in every version         |
// | frame_hash() | which path a frame takes to another server: of any frame, and faster for   |
// |              | IPv6; only that all packets of a flow have the same one is certain         |
#pragma once

#include <cstdint>
#include <cstring>

#include "host/headers.h"

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

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

constexpr uint64_t kFlowSeed = 0x9e3779b97f4a7c15ULL;
inline uint64_t flow_mix(uint64_t value) {
  value ^= value >> 32;
  value *= 0xd6e8feb86659fd93ULL;
  value ^= value >> 32;
  value *= 0xd6e8feb86659fd93ULL;
  return value ^ value >> 32;
}
// From the words of a tuple: 2 of each address, then ports, protocol and version.
inline uint64_t flow_hash_ipv4(uint64_t addresses, uint64_t last) {
  return flow_mix(flow_mix(kFlowSeed ^ addresses) ^ last);
}
inline uint64_t flow_hash_ipv6(const uint64_t (&addresses)[4], uint64_t last) {
  uint64_t hash = kFlowSeed;
  for (uint64_t word : addresses) hash = flow_mix(hash ^ word) + kFlowSeed;
  return flow_mix(hash ^ last) + kFlowSeed;
}
inline uint64_t flow_hash(const FiveTuple& key) {
  uint64_t words[5] = {};
  std::memcpy(words, &key, sizeof key);
  if (key.version == 4) return flow_hash_ipv4((words[0] & 0xffffffff) | words[2] << 32, words[4]);
  return flow_hash_ipv6({words[0], words[1], words[2], words[3]}, words[4]);
}
inline uint64_t flow_last_word(const Headers& h) {
  return h.sport | static_cast<uint64_t>(h.dport) << 16 | static_cast<uint64_t>(h.ip_proto) << 32 |
         static_cast<uint64_t>(h.ip_version) << 40;
}
// The same straight from an IP packet, without a detour of the key through memory.
inline uint64_t flow_hash(const uint8_t* packet, const Headers& h) {
  const uint64_t last = flow_last_word(h);
  if (h.ip_version == 4) {
    uint64_t addresses;
    std::memcpy(&addresses, packet + h.l3_off + 12, sizeof addresses);
    return flow_hash_ipv4(addresses, last);
  }
  uint64_t addresses[4];
  std::memcpy(addresses, packet + h.l3_off + 8, sizeof addresses);
  return flow_hash_ipv6(addresses, last);
}
// A flow's identity as words, made without a detour through bytes; all 0 where the packet is not
// IP.
constexpr uint32_t kFlowWords = 5;
inline void flow_words(const uint8_t* packet, const Headers& h, uint64_t (&words)[kFlowWords]) {
  words[0] = words[1] = words[2] = words[3] = 0;
  words[4] = h.ip_version == 0 ? 0 : flow_last_word(h);
  if (h.ip_version == 4) std::memcpy(words, packet + h.l3_off + 12, 8);
  if (h.ip_version == 6) std::memcpy(words, packet + h.l3_off + 8, 32);
}

// Both halves of a product folded into one: any bit of either factor may change any bit, for one
// multiplication.
inline uint64_t fold_multiply(uint64_t a, uint64_t b) {
  __extension__ using Product = unsigned __int128;
  const Product product = static_cast<Product>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Of a frame that is not IP: by its MAC addresses.
uint64_t mac_hash(const uint8_t* packet, uint32_t len);
// Addresses of IPv6 are multiplied side by side: flow_hash_ipv6() has ten multiplications, each of
// which waits for the one before.
inline uint64_t path_hash_ipv6(const uint8_t* ip, uint64_t last) {
  constexpr uint64_t kFactors[] = {0xa0761d6478bd642fULL, 0xe7037ed1a0b428dbULL,
                                   0x8ebc6af09c88c6e3ULL, 0x589965cc75374cc3ULL};
  uint64_t addresses[4];
  std::memcpy(addresses, ip + 8, sizeof addresses);
  const uint64_t src = fold_multiply(addresses[0] ^ kFactors[0], addresses[1] ^ kFactors[1]);
  const uint64_t dst = fold_multiply(addresses[2] ^ kFactors[2], addresses[3] ^ kFactors[3]);
  return fold_multiply(src ^ dst ^ kFlowSeed, last ^ kFactors[0]);
}
// What stands for protocol and ports of an IPv6 packet with a flow label (RFC 6437, RFC 6438); 0
// where it has none.
inline uint64_t flow_label_word(const uint8_t* ip) {
  const uint64_t label = load_be32(ip) & 0xfffff;
  return label == 0 ? 0 : label | uint64_t{6} << 40;
}
// All fragments of a datagram are one flow: without a label, none counts with its ports.
inline uint64_t frame_hash(const uint8_t* packet, uint32_t len) {
  // With a label nothing behind the fixed header counts, and is looked for.
  const bool ipv6 = len >= kEthernetBytes + kIpv6Bytes && load_be32(packet + 12) >> 12 == 0x86dd6;
  if (ipv6) {
    const uint8_t* const ip = packet + kEthernetBytes;
    if (const uint64_t last = flow_label_word(ip)) return path_hash_ipv6(ip, last);
  }
  Headers h = parse_headers(packet, len);
  if (h.ip_version == 0) return mac_hash(packet, len);
  if (h.more_fragments) h.sport = h.dport = 0;
  if (h.ip_version == 4) return flow_hash(packet, h);
  const uint8_t* const ip = packet + h.l3_off;
  const uint64_t last = flow_label_word(ip);
  return path_hash_ipv6(ip, last == 0 ? flow_last_word(h) : last);
}

}  // namespace e2
#pragma GCC visibility pop
