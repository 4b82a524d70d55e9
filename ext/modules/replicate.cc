// SPDX-License-Identifier: BSD-3-Clause
// Replicate: sends one copy of each packet, metadata included, to every gate of a list.
//
// The packet itself goes to the first gate, copies go to the others, which see theirs before the
// first does. Without gates packets go to gate 0. All gates get a packet or none does: when the
// pool has too few buffers left for all copies of a packet, it is dropped and counted.
//
// Family: distribution
// Gates: in 1, out 32.
// Arguments: ReplicateArg
// Commands:
//   set_gates  changes the gates
// Metadata: none of its own.
// Drop reasons:
//   "no buffer"  the pool has too few for all copies
// Origin: the module of this name in BESS, which sends the packet itself to gate 0 whatever its
// list says; the code is new.
#include <algorithm>

#include "host/live_table.h"
#include "modules/gate_args.h"

namespace e2 {
namespace {

constexpr Gate kMaxCopies = 32;

class Replicate final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    no_buffer_ = add_drop_reason("no buffer");
    return read(args["gates"].as_list(), "Replicate.gates");
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const Targets targets = *targets_.read(ctx);
    const size_t copies = targets.count - 1;
    Batch out[kMaxCopies - 1];
    uint32_t whole = batch.size;
    for (size_t j = 0; j < copies && whole != 0; ++j) {
      ctx.alloc(out[j], whole, 0);
      whole = out[j].size;
    }
    for (size_t j = 0; j < copies; ++j) {
      for (uint32_t i = 0; i < whole; ++i) {
        // A buffer of the same pool always has the room.
        if (!out[j][i]->copy_from(*batch[i])) out[j][i]->reset(0);
      }
    }
    drop_rest(ctx, batch, whole);
    for (size_t j = 0; j < copies; ++j) {
      if (out[j].size > whole) {
        ctx.free(out[j].packets + whole, out[j].size - whole);
        out[j].size = whole;
      }
      emit(ctx, out[j], targets.gates[j + 1]);
    }
    emit(ctx, batch, targets.gates[0]);
  }

  std::string description() const override {
    return std::to_string(targets_.look()->count) + " gates";
  }

  Status set_gates(const Args& args, Args&) {
    return read(args["gates"].as_list(), "set_gates: gates");
  }

 private:
  struct Targets {
    uint32_t count = 1;
    Gate gates[kMaxCopies] = {};
  };

  void drop_rest(Context& ctx, Batch& batch, uint32_t whole) {
    if (whole == batch.size) return;
    Batch rest;
    for (uint32_t i = whole; i < batch.size; ++i) rest.add(batch[i]);
    batch.size = whole;
    drop(ctx, rest, no_buffer_);
  }

  Status read(const Args::List& list, const std::string& where) {
    std::vector<Gate> gates;
    Status status = read_gates(list, where, kMaxCopies, kMaxGates, gates);
    if (!status.ok()) return status;
    for (size_t i = 0; i < gates.size(); ++i) {
      if (gates[i] < kMaxCopies) continue;
      return Status::invalid(where + "[" + std::to_string(i) + "]: is " + std::to_string(gates[i]) +
                             "; must be 0 to " + std::to_string(kMaxCopies - 1));
    }
    if (gates.empty()) gates.push_back(0);
    targets_.change([&gates](Targets& targets) {
      targets.count = static_cast<uint32_t>(gates.size());
      std::copy(gates.begin(), gates.end(), targets.gates);
    });
    return {};
  }

  Live<Targets> targets_;
  uint32_t no_buffer_ = 0;
};

const ModuleClass kClass = {"Replicate",
                            "repl",
                            "makes a copy of a packet and sends it out over n gates",
                            "ReplicateArg",
                            1,
                            kMaxCopies,
                            {{"set_gates", "ReplicateCommandSetGatesArg", "EmptyArg", true,
                              command(&Replicate::set_gates)}},
                            make_module<Replicate>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
