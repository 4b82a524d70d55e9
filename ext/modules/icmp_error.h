// SPDX-License-Identifier: BSD-3-Clause
// make_icmp_error: turns a frame into the ICMP error about the IP packet in it, on its way back.
// may_report: whether there may be one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "host/headers.h"
#include "host/packet.h"
#include "modules/ip_fragment.h"

namespace e2 {

constexpr uint32_t kIcmpHeadBytes = 8;
constexpr uint32_t kMaxIcmpError = 576;     // as an IPv4 packet (RFC 1812, 4.3.2.3)
constexpr uint32_t kMaxIcmpv6Error = 1280;  // as an IPv6 packet (RFC 4443, 2.4 c)

// Addresses that one host alone can have (RFC 1812, 5.3.7), as far as they tell: broadcasts of a
// subnet look like others.
inline bool is_ipv4_host(const uint8_t* address) {
  return address[0] != 0 && address[0] != 127 && address[0] < 224;
}
inline bool is_ipv6_host(const uint8_t* address) {
  const bool reserved = load_be64(address) == 0 && load_be64(address + 8) <= 1;  // :: and ::1
  return address[0] != 0xff && !reserved;
}

// RFC 1122 3.2.2, RFC 1812 4.3.2.7 and RFC 4443 2.4 e: no error about errors, redirects, IPv4
// fragments other than the first, and packets that came from or go to more than one host, by IP or
// MAC address. Nor about packets of which it can't be known.
inline bool may_report(const uint8_t* data, const Headers& h) {
  constexpr uint8_t kGroup = 1;
  if (((data[0] | data[6]) & kGroup) != 0) return false;
  const uint8_t* const ip = data + h.l3_off;
  if (h.ip_version == 4) {
    if (h.fragment || !is_ipv4_host(ip + 12) || !is_ipv4_host(ip + 16)) return false;
    if (h.ip_proto != kProtoIcmp) return true;
    if (h.l4_off == 0) return false;
    const uint8_t type = data[h.l4_off];
    return type != 3 && type != 4 && type != 5 && type != 11 && type != 12;
  }
  if (h.l3_len == 0 || !is_ipv6_host(ip + 8) || !is_ipv6_host(ip + 24)) return false;
  if (h.ip_proto != kProtoIcmpv6) return true;
  constexpr uint8_t kFirstQuery = 128, kRedirect = 137;
  return h.l4_off != 0 && data[h.l4_off] >= kFirstQuery && data[h.l4_off] != kRedirect;
}

struct IcmpError {
  uint8_t type;
  uint8_t code;
  uint32_t word;          // what follows the checksum
  const uint8_t* source;  // its address; nullptr: the destination of the packet
};

// The frame has the whole IP packet. MAC addresses are swapped, VLAN tags and metadata stay. False,
// and nothing is changed, where there is no headroom.
inline bool make_icmp_error(Packet& packet, const Headers& h, const IcmpError& error) {
  constexpr uint32_t kMacBytes = 6;
  constexpr uint8_t kHops = 64;
  constexpr uint8_t kInternetControl = 0xc0;  // its precedence (RFC 1812, 4.3.2.5)
  const bool v4 = h.ip_version == 4;
  const uint32_t ip_bytes = v4 ? kIpv4Bytes : kIpv6Bytes;
  const uint32_t head = ip_bytes + kIcmpHeadBytes;
  const uint32_t quote =
      std::min<uint32_t>(h.ip_total_len, (v4 ? kMaxIcmpError : kMaxIcmpv6Error) - head);
  uint8_t* const data = packet.prepend(head);
  if (data == nullptr) return false;
  packet.trim(packet.len() - h.l2_len - head - quote);
  packet.set_wire_len(0);
  std::memmove(data, data + head, h.l2_len);
  uint8_t mac[kMacBytes];
  std::memcpy(mac, data, kMacBytes);
  std::memcpy(data, data + kMacBytes, kMacBytes);
  std::memcpy(data + kMacBytes, mac, kMacBytes);

  uint8_t* const ip = data + h.l2_len;
  uint8_t* const icmp = ip + ip_bytes;
  const uint32_t icmp_bytes = kIcmpHeadBytes + quote;
  const uint32_t address_at = v4 ? 12 : 8;
  const uint32_t address_bytes = v4 ? 4 : 16;
  const uint8_t* const about = icmp + kIcmpHeadBytes + address_at;
  std::memset(ip, 0, head);
  std::memcpy(ip + address_at, error.source != nullptr ? error.source : about + address_bytes,
              address_bytes);
  std::memcpy(ip + address_at + address_bytes, about, address_bytes);
  icmp[0] = error.type;
  icmp[1] = error.code;
  store_be32(icmp + 4, error.word);
  uint32_t sum = 0;
  if (v4) {
    ip[0] = 0x45;
    ip[1] = kInternetControl;
    store_be16(ip + 2, static_cast<uint16_t>(head + quote));
    store_be16(ip + 6, kDontFragment);  // so that the identification means nothing (RFC 6864)
    ip[8] = kHops;
    ip[9] = kProtoIcmp;
    store_be16(ip + 10, ipv4_checksum(ip, ip_bytes));
  } else {
    ip[0] = 0x60;
    store_be16(ip + 4, static_cast<uint16_t>(icmp_bytes));
    ip[6] = kProtoIcmpv6;
    ip[7] = kHops;
    sum = checksum_add(ip + address_at, size_t{2} * address_bytes, icmp_bytes + kProtoIcmpv6);
  }
  store_be16(icmp + 2, checksum_fold(checksum_add(icmp, icmp_bytes, sum)));
  return true;
}

}  // namespace e2
