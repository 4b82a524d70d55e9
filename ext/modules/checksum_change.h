// SPDX-License-Identifier: BSD-3-Clause
// Internet checksums after a change of the words that they cover (RFC 1624): right stays right, and
// wrong stays wrong.
#pragma once

#include <cstdint>

#include "host/headers.h"

namespace e2 {

// Equation 3: what replacing `before` by `after` adds to the complement of a checksum. Changes of
// several words may be added up, up to 2^16 of them.
inline uint32_t change16(uint16_t before, uint16_t after) {
  return static_cast<uint32_t>(static_cast<uint16_t>(~before)) + after;
}
inline uint32_t change32(uint32_t before, uint32_t after) {
  return change16(static_cast<uint16_t>(before >> 16), static_cast<uint16_t>(after >> 16)) +
         change16(static_cast<uint16_t>(before), static_cast<uint16_t>(after));
}
inline void update_checksum(uint8_t* field, uint32_t change) {
  store_be16(field, checksum_fold(static_cast<uint16_t>(~load_be16(field)) + change));
}
// UDP's: none, which is 0, stays none, and a sum of 0 is written as 0xffff.
inline void update_udp_checksum(uint8_t* field, uint32_t change) {
  if (load_be16(field) == 0) return;
  update_checksum(field, change);
  if (load_be16(field) == 0) store_be16(field, 0xffff);
}

}  // namespace e2
