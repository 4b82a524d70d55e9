// SPDX-License-Identifier: BSD-3-Clause
// Source: makes packets of undefined content as fast as it is scheduled.
//
// An empty pool makes a shorter burst.
//
// Family: endpoints
// Gates: in 0, out 1. One task.
// Arguments: SourceArg
// Commands:
//   set_pkt_size  changes the length of packets
//   set_burst     packets per run of the task
// Metadata: none.
// Drop reasons: none.
// Origin: the module of this name in BESS; the code is new.
#include <atomic>

#include "host/module.h"

namespace e2 {
namespace {

class Source final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    add_task(0);
    Args none;
    return args["pkt_size"].as_uint() == 0 ? Status{} : set_pkt_size(args, none);
  }

  TaskResult run_task(Context& ctx, uint64_t) override {
    Batch batch;
    const uint32_t bytes = pkt_bytes_.load(std::memory_order_relaxed);
    const uint32_t made = ctx.alloc(batch, burst_.load(std::memory_order_relaxed), bytes);
    emit(ctx, batch);
    return {made == 0, made, static_cast<uint64_t>(made) * (bytes + 24) * 8};
  }

  Status set_pkt_size(const Args& args, Args&) {
    const uint64_t bytes = args["pkt_size"].as_uint();
    if (bytes == 0 || bytes > 2048)
      return Status::invalid("'pkt_size' must be within 1..2048 bytes");
    pkt_bytes_.store(static_cast<uint32_t>(bytes), std::memory_order_relaxed);
    return {};
  }

  Status set_burst(const Args& args, Args&) {
    const uint64_t burst = args["burst"].as_uint();
    if (burst == 0 || burst > kMaxBatch) return Status::invalid("'burst' must be within 1..32");
    burst_ = static_cast<uint32_t>(burst);
    return {};
  }

 private:
  std::atomic<uint32_t> pkt_bytes_{60};
  std::atomic<uint32_t> burst_{kMaxBatch};
};

const ModuleClass kClass = {
    "Source",
    "source",
    "makes packets of a given size as fast as it can",
    "SourceArg",
    0,
    1,
    {{"set_pkt_size", "SourceCommandSetPktSizeArg", "EmptyArg", true,
      command(&Source::set_pkt_size)},
     {"set_burst", "SourceCommandSetBurstArg", "EmptyArg", true, command(&Source::set_burst)}},
    make_module<Source>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
