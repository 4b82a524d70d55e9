// SPDX-License-Identifier: BSD-3-Clause
// Batch: up to 32 packets that travel through modules together.
#pragma once

#include <cstdint>

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

}  // namespace e2
