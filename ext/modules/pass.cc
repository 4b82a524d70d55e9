// SPDX-License-Identifier: BSD-3-Clause
// Sink: frees every packet.
//
// Family: endpoints
// Gates: in 1, out 0.
// Arguments: SinkArg
// Commands: none.
// Metadata: none.
// Drop reasons: none.
// Origin: the module of this name in BESS; the code is new.
//
// Bypass: forwards packets unchanged, after burning cycles where asked to.
//
// What comes in by a gate leaves by the output gate of the same number.
//
// Family: measurement
// Gates: in 8192, out 8192.
// Arguments: BypassArg
// Commands: none.
// Metadata: none.
// Drop reasons: none.
// Limits: no more than 10^8 cycles for a full batch: whoever pauses a worker waits for its batch.
// Origin: the module of this name in BESS; the code is new.
//
// Merge: joins many inputs to one output.
//
// Family: distribution
// Gates: in 8192, out 1.
// Arguments: MergeArg
// Commands: none.
// Metadata: none.
// Drop reasons: none.
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>

#include "engine/clock.h"
#include "host/module.h"

namespace e2 {
namespace {

class Sink final : public Module {
 public:
  void process(Context& ctx, Batch& batch, Gate) override { ctx.free(batch); }
};

class Merge final : public Module {
 public:
  void process(Context& ctx, Batch& batch, Gate) override { emit(ctx, batch); }
};

constexpr uint64_t kMostCycles = 100'000'000;
constexpr uint64_t kLongestPacket = 2048;

class Bypass final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    per_batch_ = args["cycles_per_batch"].as_uint();
    per_packet_ = args["cycles_per_packet"].as_uint();
    per_byte_ = args["cycles_per_byte"].as_uint();
    if (std::max({per_batch_, per_packet_, per_byte_}) > kMostCycles ||
        per_batch_ + kMaxBatch * (per_packet_ + per_byte_ * kLongestPacket) > kMostCycles) {
      return Status::invalid("more than " + std::to_string(kMostCycles) +
                             " cycles for a batch of 32 packets of 2,048 bytes: its worker could "
                             "not be paused in time");
    }
    burns_ = (per_batch_ | per_packet_ | per_byte_) != 0;
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate in_gate) override {
    if (burns_) burn(batch);
    emit(ctx, batch, in_gate);
  }

 private:
  void burn(const Batch& batch) const {
    const uint64_t start = read_tsc();
    uint64_t cycles = per_batch_ + per_packet_ * batch.size;
    if (per_byte_ != 0) {
      for (uint32_t i = 0; i < batch.size; ++i) cycles += per_byte_ * batch[i]->len();
    }
    while (read_tsc() - start < cycles) {
    }
  }

  uint64_t per_batch_ = 0;
  uint64_t per_packet_ = 0;
  uint64_t per_byte_ = 0;
  bool burns_ = false;
};

const ModuleClass kSink = {"Sink", "sink", "frees every packet", "SinkArg",  1,
                           0,      {},     make_module<Sink>,    kAnyWorkers};
const ModuleClass kMerge = {"Merge",
                            "merge",
                            "joins many inputs to one output",
                            "MergeArg",
                            kMaxGates,
                            1,
                            {},
                            make_module<Merge>,
                            kAnyWorkers};
const ModuleClass kBypass = {
    "Bypass",  "bypass", "forwards packets unchanged", "BypassArg", kMaxGates,
    kMaxGates, {},       make_module<Bypass>,          kAnyWorkers};
const ModuleRegistration kSinkRegistered{kSink};
const ModuleRegistration kMergeRegistered{kMerge};
const ModuleRegistration kBypassRegistered{kBypass};

}  // namespace
}  // namespace e2
