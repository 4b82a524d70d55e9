// SPDX-License-Identifier: BSD-3-Clause
// Buffer: holds packets back until there are 64 of them, which leave as two batches of 32.
//
// Each worker fills a buffer of its own. Nothing but further packets sends on what it holds: the
// last packets of a source that ends stay until the module goes.
//
// Family: distribution
// Gates: in 1, out 1.
// Arguments: BufferArg
// Commands: none.
// Metadata: none.
// Drop reasons: none.
// Origin: the module of this name in BESS, which holds as many as its batches have: 32 or, where it
// is maintained, 64; the code is new.
#include <algorithm>

#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kHeldPackets = 64;  // a batch of the maintained BESS
static_assert(kHeldPackets % kMaxBatch == 0 && kHeldPackets > kMaxBatch, "whole batches leave");

class Buffer final : public Module {
 public:
  void process(Context& ctx, Batch& batch, Gate) override {
    Held& held = held_[ctx.wid];
    const uint32_t count = std::min(batch.size, kHeldPackets - held.size);
    copy_packets(held.packets + held.size, batch.packets, count);
    held.size += count;
    if (held.size < kHeldPackets) return;
    // What follows may lead back here, so the buffer has to be in order before anything leaves.
    Packet* out[kHeldPackets];
    copy_packets(out, held.packets, kHeldPackets);
    held.size = batch.size - count;
    copy_packets(held.packets, batch.packets + count, held.size);
    for (uint32_t sent = 0; sent < kHeldPackets; sent += kMaxBatch) {
      copy_packets(batch.packets, out + sent, kMaxBatch);
      batch.size = kMaxBatch;
      emit(ctx, batch);
    }
  }

  void release(Context& ctx) override {
    for (Held& held : held_) {
      ctx.free(held.packets, held.size);
      held.size = 0;
    }
  }

  std::string description() const override { return "groups of " + std::to_string(kHeldPackets); }

 private:
  struct alignas(kCacheLineBytes) Held {
    uint32_t size = 0;
    Packet* packets[kHeldPackets];
  };

  Held held_[kMaxWorkers];
};

const ModuleClass kClass = {"Buffer",
                            "buffer",
                            "buffers packets into larger batches",
                            "BufferArg",
                            1,
                            1,
                            {},
                            make_module<Buffer>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
