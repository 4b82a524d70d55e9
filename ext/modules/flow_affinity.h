// SPDX-License-Identifier: BSD-3-Clause
// FlowAffinity: which packets belong to one flow, and the number that a flow has.
//
// A key is what is left of a packet's addresses, ports and protocol under the affinity's masks, and
// the IP version. With `symmetric`, the lower of its two endpoints (address, then port, as numbers)
// comes first, so that both directions have one key. Packets of a fragmented datagram have no
// ports, so that all of them have one key.
//
// The flow id, where it comes from the key, is the upper half of flow_hash() (host/headers.h).
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "host/args.h"
#include "host/flow_hash.h"
#include "host/status.h"

namespace e2 {

// words[0]: ports, protocol and version, as flow_hash() takes them; then the addresses, both IPv4
// ones in words[1]. Words that IPv4 doesn't use are undefined unless they were set.
struct FlowKey {
  uint64_t words[5];

  bool ipv6() const { return words[0] >> 40 == 6; }
  uint32_t id() const {
    const uint64_t hash = ipv6()
                              ? flow_hash_ipv6({words[1], words[2], words[3], words[4]}, words[0])
                              : flow_hash_ipv4(words[1], words[0]);
    return static_cast<uint32_t>(hash >> 32);
  }
};

class FlowAffinity {
 public:
  // `fields` is a list of FlowSteerField; empty: all fields, all bits.
  Status init(const Args::List& fields, bool symmetric, const std::string& where);

  bool symmetric() const { return symmetric_; }
  // Whether no two connections have one key, so that the end of one is the end of a flow.
  bool one_connection() const { return one_connection_; }

  // The key of a packet that is IP; whether its endpoints changed places.
  template <bool kSymmetric>
  bool load(const uint8_t* packet, const Headers& h, FlowKey& key) const {
    const bool whole = !h.fragment && !h.more_fragments;
    const uint64_t ports = whole ? h.sport | static_cast<uint64_t>(h.dport) << 16 : 0;
    key.words[0] = (ports | static_cast<uint64_t>(h.ip_proto) << 32 |
                    static_cast<uint64_t>(h.ip_version) << 40) &
                   last_mask_;
    const uint8_t* ip = packet + h.l3_off;
    if (h.ip_version == 4) {
      uint64_t addresses;
      std::memcpy(&addresses, ip + 12, sizeof addresses);
      key.words[1] = addresses & ipv4_mask_;
      return kSymmetric && order_ipv4(key);
    }
    std::memcpy(key.words + 1, ip + 8, sizeof ipv6_mask_);
    for (int w = 0; w < 4; ++w) key.words[1 + w] &= ipv6_mask_[w];
    return kSymmetric && order_ipv6(key);
  }

  // The key of a FlowSteerFlow, all words set.
  Status read(const Args& flow, const std::string& where, FlowKey& key) const;
  // The FlowSteerFlow of a key, all words set.
  static Args describe(const FlowKey& key);

 private:
  Status read_field(const Args& field, const std::string& where);
  Status check_symmetry(const std::string& where) const;

  static uint64_t swapped_ports(uint64_t last) {
    return (last & ~uint64_t{0xffffffff}) | (last >> 16 & 0xffff) | (last & 0xffff) << 16;
  }
  static bool order_ipv4(FlowKey& key) {
    const uint64_t addresses = __builtin_bswap64(key.words[1]);
    const uint64_t first = addresses >> 32 << 16 | (key.words[0] & 0xffff);
    const uint64_t second = (addresses & 0xffffffff) << 16 | (key.words[0] >> 16 & 0xffff);
    const bool swap = first > second;
    const uint64_t ports = swapped_ports(key.words[0]);
    key.words[0] = swap ? ports : key.words[0];
    key.words[1] = swap ? key.words[1] << 32 | key.words[1] >> 32 : key.words[1];
    return swap;
  }
  static bool order_ipv6(FlowKey& key);

  bool symmetric_ = false;
  bool one_connection_ = true;
  uint64_t last_mask_ = ~uint64_t{0};
  uint64_t ipv4_mask_ = ~uint64_t{0};
  uint64_t ipv6_mask_[4] = {~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}};
};

}  // namespace e2
