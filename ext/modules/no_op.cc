// SPDX-License-Identifier: BSD-3-Clause
// NoOP: a task that does nothing, for measuring the scheduler.
//
// The task never asks the scheduler to look elsewhere, so it takes all the time it can get.
//
// Family: measurement
// Gates: in 0, out 0. One task.
// Arguments: EmptyArg
// Commands: none.
// Metadata: none.
// Drop reasons: none.
// Origin: the module of this name in BESS; the code is new.
#include "host/module.h"

namespace e2 {
namespace {

class NoOp final : public Module {
 public:
  Status init(Host&, const Args&) override {
    add_task(0);
    return {};
  }

  TaskResult run_task(Context&, uint64_t) override { return {}; }
};

const ModuleClass kClass = {
    "NoOP",     "noop", "creates a task that does nothing", "EmptyArg", 0, 0, {}, make_module<NoOp>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
