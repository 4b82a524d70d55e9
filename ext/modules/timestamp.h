// SPDX-License-Identifier: BSD-3-Clause
// What Timestamp writes and Measure reads: a time of clock_ns(), either as an 8-byte
// metadata attribute or in the packet behind a 4-byte marker. Both in host byte order.
#pragma once

#include <cstdint>

namespace e2 {

constexpr uint32_t kStampMarker = 0x54c5be55;
constexpr uint32_t kStampBytes = 12;  // marker and time
constexpr uint64_t kMaxStampOffset = 2048 - kStampBytes;
constexpr const char* kStampAttr = "timestamp";

}  // namespace e2
