// SPDX-License-Identifier: BSD-3-Clause
#include "host/flow_hash.h"

#include <algorithm>

namespace e2 {

bool flow_key(const uint8_t* packet, const Headers& h, FiveTuple& key) {
  std::memset(&key, 0, sizeof key);
  if (h.ip_version == 0) return false;
  const uint8_t* ip = packet + h.l3_off;
  if (h.ip_version == 4) {
    std::memcpy(key.src, ip + 12, 4);
    std::memcpy(key.dst, ip + 16, 4);
  } else {
    std::memcpy(key.src, ip + 8, 16);
    std::memcpy(key.dst, ip + 24, 16);
  }
  key.sport = h.sport;
  key.dport = h.dport;
  key.proto = h.ip_proto;
  key.version = h.ip_version;
  return true;
}

uint64_t mac_hash(const uint8_t* packet, uint32_t len) {
  FiveTuple macs = {};
  std::memcpy(macs.src, packet, std::min<uint32_t>(len, 12));
  return flow_hash(macs);
}

}  // namespace e2
