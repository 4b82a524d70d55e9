// SPDX-License-Identifier: BSD-3-Clause
// WorkerSplit: sends packets to the gate of the worker that runs it.
//
// Without arguments, worker n has gate n. Where gates are listed, workers that are not drop what
// they bring. What follows a gate counts as reached by the gate's workers only.
//
// Family: distribution
// Gates: in 1, out 64.
// Arguments: WorkerSplitArg
// Commands:
//   reset  changes the gates; where that leads too many workers to a module, they stay paused
// Metadata: none.
// Drop reasons:
//   "no gate for this worker"  gates are listed, but none for it
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>
#include <cstdlib>

#include "host/module.h"

namespace e2 {
namespace {

class WorkerSplit final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    no_gate_ = drop_gate(add_drop_reason("no gate for this worker"));
    return read(args, "WorkerSplit.worker_gates");
  }

  void process(Context& ctx, Batch& batch, Gate) override { emit(ctx, batch, gates_[ctx.wid]); }

  bool leads_to(uint32_t wid, Gate gate) const override { return gates_[wid] == gate; }

  Status reset(const Args& args, Args&) { return read(args, "reset: worker_gates"); }

 private:
  Status read(const Args& args, const std::string& where) {
    const Args::Map& listed = args["worker_gates"].as_map();
    Gate gates[kMaxWorkers];
    for (uint32_t wid = 0; wid < kMaxWorkers; ++wid) {
      gates[wid] = listed.empty() ? static_cast<Gate>(wid) : no_gate_;
    }
    for (const auto& entry : listed) {
      const uint64_t gate = entry.second.as_uint();
      const uint64_t wid = std::strtoull(entry.first.c_str(), nullptr, 10);
      if (wid >= kMaxWorkers) {
        return Status::invalid(where + " has worker " + entry.first + "; must be below " +
                               std::to_string(kMaxWorkers));
      }
      if (gate >= kMaxWorkers) {
        return Status::invalid(where + "[" + entry.first + "] is gate " + std::to_string(gate) +
                               "; must be below " + std::to_string(kMaxWorkers));
      }
      gates[wid] = static_cast<Gate>(gate);
    }
    std::copy(gates, gates + kMaxWorkers, gates_);
    return {};
  }

  Gate gates_[kMaxWorkers] = {};
  Gate no_gate_ = 0;
};

const ModuleClass kClass = {
    "WorkerSplit",
    "ws",
    "sends packets to the gate of the worker that runs it",
    "WorkerSplitArg",
    1,
    static_cast<Gate>(kMaxWorkers),
    {{"reset", "WorkerSplitArg", "EmptyArg", false, command(&WorkerSplit::reset)}},
    make_module<WorkerSplit>,
    kAnyWorkers,
    false,
    true};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
