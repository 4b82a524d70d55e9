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

// Calls emit(batch, gate) with the packets of one gate after the other, in order within each; once
// and with the batch itself where all go to one. `gates` has kMaxBatch entries.
template <typename Emit>
inline void split_by_gate(Batch& batch, const Gate* gates, Emit emit) {
  if (batch.empty()) return;
  const GateSplit& split = gate_split();
  PacketMask left = mask_of(batch.size);
  PacketMask taken = left & split.match(gates, gates[0]);
  if (taken == left) {
    emit(batch, gates[0]);
    return;
  }
  // The gate of the first packet left, all of its packets at once, until none is left.
  Batch out;
  while (left != 0) {
    const Gate gate = gates[__builtin_ctz(left)];
    taken = left & split.match(gates, gate);
    split.take(batch, taken, out);
    left &= ~taken;
    emit(out, gate);
  }
  batch.clear();
}

}  // namespace e2
