// SPDX-License-Identifier: BSD-3-Clause
// What Timestamp writes and Measure reads: a time in ns on the monotonic clock, either as an 8-byte
// metadata attribute or in the packet behind a 4-byte marker. Both in host byte order.
#pragma once

#include <cstdint>
#include <ctime>

namespace e2 {

constexpr uint32_t kStampMarker = 0x54c5be55;
constexpr uint32_t kStampBytes = 12;  // marker and time
constexpr uint64_t kMaxStampOffset = 2048 - kStampBytes;
constexpr const char* kStampAttr = "timestamp";

// The time now and not at the start of the task round: packets that are stamped and measured within
// one round still show how long they took.
inline uint64_t stamp_clock_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace e2
