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
#include "host/live_table.h"
#include "modules/gate_args.h"

namespace e2 {
namespace {

constexpr size_t kMaxListedGates = 16384;

class RoundRobin final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    no_gates_ = add_drop_reason("no gates");
    gate_drop_ = drop_gate(add_drop_reason("gate 8192"));
    Status status = read_list(args, "RoundRobin.gates");
    if (!status.ok() || args["mode"].as_string().empty()) return status;
    return read_mode(args["mode"].as_string(), "RoundRobin.mode");
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    auto circle = circle_.read(ctx);
    if (circle->gates.empty()) {
      circle.release();
      drop(ctx, batch, no_gates_);
      return;
    }
    const Gate* const list = circle->gates.data();
    const auto count = static_cast<uint32_t>(circle->gates.size());
    const bool per_packet = circle->per_packet;
    Turn& turn = turns_[ctx.wid];
    uint32_t next = turn.of == circle->version ? turn.next : 0;
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < (per_packet ? batch.size : 1); ++i) {
      gates[i] = list[next];
      next = next + 1 < count ? next + 1 : 0;
    }
    turn = {circle->version, next};
    circle.release();
    if (per_packet) {
      emit_by_gate(ctx, batch, gates);
    } else {
      emit(ctx, batch, gates[0]);
    }
  }

  std::string description() const override {
    const auto circle = circle_.look();
    return std::to_string(circle->gates.size()) + " gates, per " +
           (circle->per_packet ? "packet" : "batch");
  }

  Status set_mode(const Args& args, Args&) {
    return read_mode(args["mode"].as_string(), "set_mode: mode");
  }

  Status set_gates(const Args& args, Args&) { return read_list(args, "set_gates: gates"); }

 private:
  struct Circle {
    std::vector<Gate> gates;
    uint32_t version = 0;  // of the gates
    bool per_packet = false;
  };
  struct alignas(kCacheLineBytes) Turn {
    uint32_t of = 0;    // which version of the gates
    uint32_t next = 0;  // from the start again with another version
  };

  Status read_list(const Args& args, const std::string& where) {
    std::vector<Gate> gates;
    Status status = read_gates(args["gates"].as_list(), where, kMaxListedGates, gate_drop_, gates);
    if (!status.ok()) return status;
    circle_.change([&gates](Circle& circle) {
      circle.gates = gates;
      ++circle.version;
    });
    return {};
  }

  Status read_mode(const std::string& mode, const std::string& where) {
    if (mode != "packet" && mode != "batch") {
      return Status::invalid(where + ": is '" + mode + "'; must be either 'packet' or 'batch'");
    }
    circle_.change([&mode](Circle& circle) { circle.per_packet = mode == "packet"; });
    return {};
  }

  Live<Circle> circle_;
  Turn turns_[kMaxWorkers];
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
    {{"set_mode", "RoundRobinCommandSetModeArg", "EmptyArg", true, command(&RoundRobin::set_mode)},
     {"set_gates", "RoundRobinCommandSetGatesArg", "EmptyArg", true,
      command(&RoundRobin::set_gates)}},
    make_module<RoundRobin>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
