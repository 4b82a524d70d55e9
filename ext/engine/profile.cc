// SPDX-License-Identifier: BSD-3-Clause
// A batch is handed to a module that does nothing, with profiling and without: the difference is
// what profiling costs. What lies between two clock reads in a row is counted in the module that
// gets the batch, the rest in the one that emits it. Of several rounds the fastest counts: it is
// the one that nothing interrupted.
#include "engine/profile.h"

#include <algorithm>
#include <memory>

#include "engine/clock.h"

namespace e2 {
namespace {

constexpr int kRounds = 32;
constexpr int kBatches = 128;

class Hole final : public Module {
 public:
  void process(Context&, Batch&, Gate) override {}
};

// The cycles that `run` takes each time.
template <typename Run>
uint64_t cycles_of(Run run) {
  uint64_t best = UINT64_MAX;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t start = read_tsc();
    for (int i = 0; i < kBatches; ++i) run();
    best = std::min(best, read_tsc() - start);
  }
  return best / kBatches;
}

uint64_t clock_cycles() {
  uint64_t best = UINT64_MAX;
  for (int round = 0; round < kRounds; ++round) {
    uint64_t sum = 0;
    for (int i = 0; i < kBatches; ++i) {
      const uint64_t start = read_tsc();
      sum += read_tsc() - start;
    }
    best = std::min(best, sum);
  }
  return best / kBatches;
}

}  // namespace

// Sends empty-handed batches through a gate of its own.
class ProfileProbe final : public Module {
 public:
  ProfileProbe() {
    gate_.next = &hole_;
    gate_.in = &in_;
    gate_.owner = this;
    first_out_ = &gate_;
  }

  uint64_t cycles(bool profile) {
    Context ctx;
    ctx.profile = profile;
    return cycles_of([&] {
      batch_.size = 1;  // which nobody looks at
      emit(ctx, batch_);
    });
  }

 private:
  Hole hole_;
  InGate in_;
  OutGate gate_;
  Batch batch_;
};

ProfileCost measure_profile_cost() {
  ProfileProbe probe;
  const uint64_t plain = probe.cycles(false);
  const uint64_t profiled = probe.cycles(true);
  const uint64_t added = profiled > plain ? profiled - plain : 0;
  const uint64_t inside = std::min(added, clock_cycles());
  return {inside, added - inside};
}

}  // namespace e2
