// SPDX-License-Identifier: BSD-3-Clause
// GateSplit: takes a batch apart by gate, one gate at a time, without a branch per packet.
#pragma once

#include <cstdint>

#include "host/batch.h"
#include "host/module.h"

namespace e2 {

struct GateSplit {
  // The packets that go to `gate`. Reads kMaxBatch entries of `gates`, whatever is in the last
  // ones.
  PacketMask (*match)(const Gate* gates, Gate gate);
  // Copies the packets of the mask to `to`, in order. May write anything behind them.
  void (*take)(const Batch& from, PacketMask mask, Batch& to);
};

// The fastest that this CPU has.
const GateSplit& gate_split();

}  // namespace e2
