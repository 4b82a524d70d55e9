// SPDX-License-Identifier: BSD-3-Clause
// Buffer: holds packets back until there is a full batch of 32 of them.
//
// Each worker fills a batch of its own. Nothing but further packets sends on what it holds: the
// last packets of a source that ends stay until the module goes.
//
// Family: distribution
// Gates: in 1, out 1.
// Arguments: BufferArg
// Commands: none.
// Metadata: none.
// Drop reasons: none.
// Origin: the module of this name in BESS, where a batch is 32 or 64 packets; the code is new.
#include <algorithm>

#include "host/module.h"

namespace e2 {
namespace {

class Buffer final : public Module {
 public:
  void process(Context& ctx, Batch& batch, Gate) override {
    Batch& held = held_[ctx.wid].batch;
    const uint32_t count = std::min(batch.size, kMaxBatch - held.size);
    std::copy_n(batch.packets, count, held.packets + held.size);
    held.size += count;
    if (!held.full()) return;
    Batch out = held;
    held.size = batch.size - count;
    std::copy_n(batch.packets + count, held.size, held.packets);
    emit(ctx, out);
  }

  void release(Context& ctx) override {
    for (Held& held : held_) ctx.free(held.batch);
  }

  std::string description() const override { return "batches of " + std::to_string(kMaxBatch); }

 private:
  struct alignas(kCacheLineBytes) Held {
    Batch batch;
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
