// SPDX-License-Identifier: BSD-3-Clause
// make_tcp: a TCP segment that fits a packet at hand, in its direction or back.
#pragma once

#include <cstdint>

#include "host/headers.h"
#include "host/packet.h"

namespace e2 {

constexpr uint8_t kTcpRst = 0x04;
constexpr uint8_t kTcpAck = 0x10;
constexpr uint32_t kTcpBytes = 20;

struct TcpSegment {
  bool back = false;  // from the packet's destination to its source
  uint8_t flags = 0;
  uint16_t ip_id = 0;
  uint32_t seq = 0;
  uint32_t ack = 0;
  const char* payload = nullptr;
  uint32_t payload_len = 0;
};

// The bytes that it takes: Ethernet and VLAN tags as they are in the packet, IP without options.
inline uint32_t tcp_segment_bytes(const Headers& h, const TcpSegment& segment) {
  return h.l2_len + (h.ip_version == 4 ? 20U : 40U) + kTcpBytes + segment.payload_len;
}

// Writes the segment into `to`, a packet of that length; `data` is the packet that it fits.
inline void make_tcp(const uint8_t* data, const Headers& h, const TcpSegment& segment, Packet& to) {
  constexpr uint32_t kMacBytes = 6;
  constexpr uint8_t kHops = 64;
  uint8_t* out = to.data();
  const uint32_t ip_bytes = h.ip_version == 4 ? 20 : 40;
  const uint32_t address_bytes = h.ip_version == 4 ? 4 : 16;
  const uint32_t address_at = h.ip_version == 4 ? 12 : 8;
  std::memset(out, 0, to.len());
  std::memcpy(out, data, h.l2_len);
  if (segment.back) {
    std::memcpy(out, data + kMacBytes, kMacBytes);
    std::memcpy(out + kMacBytes, data, kMacBytes);
  }
  uint8_t* ip = out + h.l2_len;
  if (h.ip_version == 4) {
    ip[0] = 0x45;
    store_be16(ip + 2, static_cast<uint16_t>(ip_bytes + kTcpBytes + segment.payload_len));
    store_be16(ip + 4, segment.ip_id);
    ip[8] = kHops;
    ip[9] = kProtoTcp;
  } else {
    ip[0] = 0x60;
    store_be16(ip + 4, static_cast<uint16_t>(kTcpBytes + segment.payload_len));
    ip[6] = kProtoTcp;
    ip[7] = kHops;
  }
  const uint8_t* from = data + h.l3_off + address_at;
  uint8_t* addresses = ip + address_at;
  std::memcpy(addresses, from + (segment.back ? address_bytes : 0), address_bytes);
  std::memcpy(addresses + address_bytes, from + (segment.back ? 0 : address_bytes), address_bytes);
  if (h.ip_version == 4) store_be16(ip + 10, ipv4_checksum(ip, ip_bytes));
  uint8_t* tcp = ip + ip_bytes;
  store_be16(tcp, segment.back ? h.dport : h.sport);
  store_be16(tcp + 2, segment.back ? h.sport : h.dport);
  store_be32(tcp + 4, segment.seq);
  store_be32(tcp + 8, segment.ack);
  tcp[12] = kTcpBytes / 4 << 4;
  tcp[13] = segment.flags;
  if (segment.payload_len != 0) {
    std::memcpy(tcp + kTcpBytes, segment.payload, segment.payload_len);
  }
  Headers made = parse_headers(out, to.len());
  store_be16(tcp + 16, l4_checksum(out, made));
}

}  // namespace e2
