// SPDX-License-Identifier: BSD-3-Clause
// Trial: hands packets to the module at its gate and tells what became of them.
//
// The command `run` sends them while no worker runs and returns what left modules of this plugin by
// gates that lead nowhere, and what arrived here. For tests and `check`, never for traffic.
#pragma once

#include <string>
#include <vector>

#include "host/module.h"

namespace e2 {

class Trial final : public Module {
 public:
  Status init(Host&, const Args&) override;
  void process(Context& ctx, Batch& batch, Gate in_gate) override;
  TaskResult run_task(Context& ctx, uint64_t) override;
  Status run(const Args& args, Args& response);

  // Whether packets that lead nowhere are to be kept; asked only where that happens.
  static bool collects() { return running_ != nullptr; }
  static void collect(const Module& module, Gate gate, const Batch& batch) {
    running_->keep(module.name(), gate, batch);
  }

 private:
  void keep(const std::string& module, Gate gate, const Batch& batch);

  static Trial* running_;
  const Args::List* packets_ = nullptr;
  size_t next_ = 0;
  Args::List kept_;
};

}  // namespace e2
