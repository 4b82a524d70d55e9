// SPDX-License-Identifier: BSD-3-Clause
// RandomSplit: drops packets at random and spreads the others over gates at random.
//
// Family: distribution
// Gates: in 1, out 8192. A gate of 8192 in the list drops its share.
// Arguments: RandomSplitArg
// Commands:
//   set_droprate  changes the probability of a drop
//   set_gates     changes the gates
// Metadata: none.
// Drop reasons:
//   "random drop"  by `drop_rate`
//   "no gates"     the list is empty
//   "gate 8192"    the share of gate 8192
// Origin: the module of this name in BESS; the code is new.
#include "host/live_table.h"
#include "modules/gate_args.h"

namespace e2 {
namespace {

constexpr size_t kMaxListedGates = 16384;
constexpr double kRandomRange = 1ULL << 53;

class RandomSplit final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    random_drop_ = drop_gate(add_drop_reason("random drop"));
    no_gates_ = add_drop_reason("no gates");
    gate_drop_ = drop_gate(add_drop_reason("gate 8192"));
    Status status = read_rate(args["drop_rate"], "RandomSplit.drop_rate");
    if (!status.ok()) return status;
    return read_list(args, "RandomSplit.gates");
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    auto split = split_.read(ctx);
    if (split->gates.empty()) {
      split.release();
      drop(ctx, batch, no_gates_);
      return;
    }
    Gate gates[kMaxBatch];
    const Gate* const list = split->gates.data();
    const uint64_t count = split->gates.size();
    const uint64_t drop_below = split->drop_below;
    Random random = ctx.random;
    for (uint32_t i = 0; i < batch.size; ++i) {
      const bool dropped = random.next() >> 11 < drop_below;
      const Gate gate = list[random.below(count)];
      gates[i] = dropped ? random_drop_ : gate;
    }
    ctx.random = random;
    split.release();
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override {
    return std::to_string(split_.look()->gates.size()) + " gates";
  }

  Status set_droprate(const Args& args, Args&) {
    return read_rate(args["drop_rate"], "set_droprate: drop_rate");
  }

  Status set_gates(const Args& args, Args&) { return read_list(args, "set_gates: gates"); }

 private:
  struct Split {
    std::vector<Gate> gates;
    uint64_t drop_below = 0;  // of 2^53
  };

  Status read_list(const Args& args, const std::string& where) {
    std::vector<Gate> gates;
    Status status = read_gates(args["gates"].as_list(), where, kMaxListedGates, gate_drop_, gates);
    if (status.ok()) split_.change([&gates](Split& split) { split.gates = gates; });
    return status;
  }

  Status read_rate(const Args& arg, const std::string& where) {
    const double rate = arg.as_double();
    if (!(rate >= 0 && rate <= 1)) {
      return Status::invalid(where + ": is " + std::to_string(rate) + "; must be from 0 to 1");
    }
    split_.change(
        [rate](Split& split) { split.drop_below = static_cast<uint64_t>(rate * kRandomRange); });
    return {};
  }

  Live<Split> split_;
  Gate random_drop_ = 0;
  uint32_t no_gates_ = 0;
  Gate gate_drop_ = 0;
};

const ModuleClass kClass = {"RandomSplit",
                            "random_split",
                            "randomly splits/drops packets",
                            "RandomSplitArg",
                            1,
                            kMaxGates,
                            {{"set_droprate", "RandomSplitCommandSetDroprateArg", "EmptyArg", true,
                              command(&RandomSplit::set_droprate)},
                             {"set_gates", "RandomSplitCommandSetGatesArg", "EmptyArg", true,
                              command(&RandomSplit::set_gates)}},
                            make_module<RandomSplit>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
