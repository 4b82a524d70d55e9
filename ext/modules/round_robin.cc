// SPDX-License-Identifier: BSD-3-Clause
// RoundRobin: hands packets, or whole batches, to gates in turn.
//
// Each worker takes its own turns.
//
// Family: distribution
// Gates: in 1, out 8192. A gate of 8192 in the list drops its share.
// Arguments: RoundRobinArg
// Commands:
//   set_mode   changes what a turn is
//   set_gates  changes the gates and starts again at the first
// Metadata: none.
// Drop reasons:
//   "no gates"   the list is empty
//   "gate 8192"  the share of gate 8192
// Origin: the module of this name in BESS; the code is new.
#include "modules/gate_args.h"

namespace e2 {
namespace {

constexpr size_t kMaxListedGates = 16384;

class RoundRobin final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    no_gates_ = add_drop_reason("no gates");
    gate_drop_ = drop_gate(add_drop_reason("gate 8192"));
    Status status = read_gates(args["gates"].as_list(), "RoundRobin.gates", kMaxListedGates,
                               gate_drop_, gates_);
    if (!status.ok() || args["mode"].as_string().empty()) return status;
    return read_mode(args["mode"].as_string(), "RoundRobin.mode");
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    if (gates_.empty()) {
      drop(ctx, batch, no_gates_);
      return;
    }
    const Gate* const list = gates_.data();
    const auto count = static_cast<uint32_t>(gates_.size());
    uint32_t next = turns_[ctx.wid].next;
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < (per_packet_ ? batch.size : 1); ++i) {
      gates[i] = list[next];
      next = next + 1 < count ? next + 1 : 0;
    }
    turns_[ctx.wid].next = next;
    if (per_packet_) {
      emit_by_gate(ctx, batch, gates);
    } else {
      emit(ctx, batch, gates[0]);
    }
  }

  std::string description() const override {
    return std::to_string(gates_.size()) + " gates, per " + (per_packet_ ? "packet" : "batch");
  }

  Status set_mode(const Args& args, Args&) {
    return read_mode(args["mode"].as_string(), "set_mode: mode");
  }

  Status set_gates(const Args& args, Args&) {
    Status status = read_gates(args["gates"].as_list(), "set_gates: gates", kMaxListedGates,
                               gate_drop_, gates_);
    if (status.ok()) {
      for (Turn& turn : turns_) turn.next = 0;
    }
    return status;
  }

 private:
  struct alignas(kCacheLineBytes) Turn {
    uint32_t next = 0;
  };

  Status read_mode(const std::string& mode, const std::string& where) {
    if (mode != "packet" && mode != "batch") {
      return Status::invalid(where + ": is '" + mode + "'; must be either 'packet' or 'batch'");
    }
    per_packet_ = mode == "packet";
    return {};
  }

  std::vector<Gate> gates_;
  Turn turns_[kMaxWorkers];
  bool per_packet_ = false;
  uint32_t no_gates_ = 0;
  Gate gate_drop_ = 0;
};

const ModuleClass kClass = {
    "RoundRobin",
    "rr",
    "splits packets evenly with round robin",
    "RoundRobinArg",
    1,
    kMaxGates,
    {{"set_mode", "RoundRobinCommandSetModeArg", "EmptyArg", false, command(&RoundRobin::set_mode)},
     {"set_gates", "RoundRobinCommandSetGatesArg", "EmptyArg", false,
      command(&RoundRobin::set_gates)}},
    make_module<RoundRobin>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
