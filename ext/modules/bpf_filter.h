// SPDX-License-Identifier: BSD-3-Clause
// BpfFilter: filter expressions in a subset of the pcap-filter(7) language.
//
// | primitive                            | a packet matches when                             |
// |--------------------------------------|---------------------------------------------------|
// | (nothing at all)                     | always                                            |
// | ip, ip6, arp, rarp                   | its EtherType says so                             |
// | tcp, udp, sctp, icmp, icmp6          | it is IPv4 or IPv6 with that protocol             |
// | [V] proto P                          | likewise; P is a number or a name as above        |
// | ether proto P                        | its EtherType is P, a number or a name            |
// | vlan [N]                             | it has a VLAN tag (the outermost is N)            |
// | [V] [DIR] host A                     | that address, IPv4 or IPv6, is A                  |
// | [V] [DIR] net N/LEN                  | that address is in N; also N mask M, or a short N |
// | [L4] [DIR] port N, portrange N-M     | that port is N, or from N to M                    |
// | ether [DIR] host MAC                 | that MAC address is MAC                           |
// | [ether] broadcast, [ether] multicast | its destination MAC address is one                |
// | less N, greater N, len OP N          | its length is <= N, >= N, or compares so          |
//
// V is ip or ip6, and for host and net also arp or rarp; L4 is tcp, udp or sctp. DIR is src, dst,
// src or dst (the default), or src and dst. A short N is 1 to 3 numbers, for /8, /16 or /24. OP is
// one of < <= > >= = == !=. After a DIR, `host` may be left out. Expressions: `not` or `!` binds
// tightest; `and` or `&&`, `or` or `||` bind alike, from left to right; parentheses group. A value
// may follow and, or, not, or an opening parenthesis without its qualifiers, which are then those
// of the value before it, or before the parenthesis: "port 80 or 443", "src host (10.0.0.1 or
// 10.0.0.2)".
//
// Different from pcap-filter(7): tests look through VLAN tags and IPv6 extension headers; fragments
// other than the first have no ports; names of hosts, networks and ports are not resolved; there is
// no packet arithmetic such as ip[9].
#pragma once

#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "host/batch.h"
#include "host/headers.h"
#include "host/status.h"

namespace e2 {

// A batch as filters see it. What common packets say is read where a test asks for it; only the
// headers of others are kept.
class Frames {
 public:
  explicit Frames(const Batch& batch) {
    for (uint32_t i = 0; i < batch.size; ++i) {
      data_[i] = batch[i]->data();
      len_[i] = batch[i]->len();
      Headers h;
      const bool common = parse_common_headers(data_[i], len_[i], h);
      common_ |= static_cast<PacketMask>(common) << i;
      if (!common) parse_any_headers(data_[i], len_[i], *new (&uncommon_[i]) Headers());
    }
  }

  const uint8_t* data(uint32_t i) const { return data_[i]; }
  uint32_t len(uint32_t i) const { return len_[i]; }
  // Up to and with the ports; the fields behind them are 0.
  Headers headers(uint32_t i) const {
    if ((common_ >> i & 1) == 0) return uncommon_[i];
    Headers h;
    h.l2_len = 14;
    h.ether_type = kEtherIpv4;
    h.ip_version = 4;
    h.l3_off = 14;
    h.l3_len = 20;
    h.l4_off = 34;
    h.ip_proto = data_[i][23];
    h.sport = load_be16(data_[i] + 34);
    h.dport = load_be16(data_[i] + 36);
    return h;
  }

 private:
  const uint8_t* data_[kMaxBatch];
  uint32_t len_[kMaxBatch];
  PacketMask common_ = 0;
  union {  // so that nothing clears them in advance
    Headers uncommon_[kMaxBatch];
  };
};

class BpfFilter {
 public:
  enum class Kind : uint8_t { kAll, kEtherType, kIpProto, kVlan, kMac, kAddress, kPort, kLength };
  enum class Direction : uint8_t { kEither, kSource, kDestination, kBoth };

  // One test, and which test comes next after either outcome.
  struct Node {
    Kind kind = Kind::kAll;
    Direction direction = Direction::kEither;
    uint8_t version = 0;      // IP version that must be there; 0 for either
    uint8_t proto = 0;        // of ports; 0 for any
    uint16_t ether_type = 0;  // whose addresses count; 0 for IPv4, ARP and RARP alike
    uint32_t low = 0;         // of the numbers that match
    uint32_t high = 0;
    uint8_t address[16] = {};
    uint8_t mask[16] = {};
    uint32_t on_true = 0;
    uint32_t on_false = 0;
  };
  static constexpr uint32_t kAccept = 0xffffffff;
  static constexpr uint32_t kReject = 0xfffffffe;
  static constexpr uint32_t kMaxVid = 0xfff;
  static constexpr uint32_t kMaxNodes = 4096;

  // Errors name the column, from 1.
  static Status compile(const std::string& text, BpfFilter& filter);

  // Which packets of the mask match. Only after a successful compile.
  PacketMask match(const Frames& frames, PacketMask packets) const;

 private:
  std::vector<Node> nodes_;  // every jump is forward
};

}  // namespace e2
