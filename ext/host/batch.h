// SPDX-License-Identifier: BSD-3-Clause
// Batch: up to 32 packets that travel through modules together.
#pragma once

#include <cstdint>
#include <cstring>

#include "host/packet.h"

namespace e2 {

constexpr uint32_t kMaxBatch = 32;

struct Batch {
  uint32_t size = 0;
  Packet* packets[kMaxBatch];

  void add(Packet* packet) { packets[size++] = packet; }
  void clear() { size = 0; }
  bool full() const { return size == kMaxBatch; }
  bool empty() const { return size == 0; }
  Packet* operator[](uint32_t i) const { return packets[i]; }
  Packet** begin() { return packets; }
  Packet** end() { return packets + size; }
};

// A copy without a call, for the few pointers of a batch.
inline void copy_packets(Packet** to, Packet* const* from, uint32_t count) {
  for (; count >= 8; count -= 8, to += 8, from += 8) std::memcpy(to, from, 8 * sizeof(Packet*));
  for (; count > 0; --count) *to++ = *from++;
}

// Bit i stands for packet i of a batch.
using PacketMask = uint32_t;
static_assert(kMaxBatch == 32, "one bit per packet");
inline PacketMask mask_of(uint32_t count) {
  return static_cast<PacketMask>((uint64_t{1} << count) - 1);
}

}  // namespace e2
