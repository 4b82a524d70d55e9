// SPDX-License-Identifier: BSD-3-Clause
// clamp_mss: lowers the maximum segment size that a TCP SYN asks for (RFC 9293, 3.7.1).
#pragma once

#include <cstdint>

#include "modules/checksum_change.h"

namespace e2 {

constexpr uint32_t kTcpFixedBytes = 20;
constexpr uint8_t kTcpSyn = 0x02;

// `tcp` is a header of `bytes` bytes, options included; its checksum follows the change (RFC 1624).
// Every MSS option above `most` is lowered to it. The walk ends at the first option that is
// malformed, as that of a receiver does.
inline void clamp_mss(uint8_t* tcp, uint32_t bytes, uint16_t most) {
  constexpr uint8_t kEnd = 0, kNop = 1, kMss = 2;
  constexpr uint32_t kMssBytes = 4;
  constexpr uint32_t kChecksumAt = 16;
  uint32_t at = kTcpFixedBytes;
  while (at < bytes && tcp[at] != kEnd) {
    if (tcp[at] == kNop) {
      ++at;
      continue;
    }
    const uint32_t len = at + 1 < bytes ? tcp[at + 1] : 0;
    if (len < 2 || at + len > bytes) return;
    uint8_t* const value = tcp + at + 2;
    if (tcp[at] == kMss && len == kMssBytes && load_be16(value) > most) {
      const uint16_t before = load_be16(value);
      store_be16(value, most);
      // At an odd place both bytes count in the other half of their words.
      const bool odd = at % 2 != 0;
      update_checksum(tcp + kChecksumAt,
                      odd ? change16(__builtin_bswap16(before), __builtin_bswap16(most))
                          : change16(before, most));
    }
    at += len;
  }
}

}  // namespace e2
