// SPDX-License-Identifier: BSD-3-Clause
// Graph: the modules of a daemon, how their gates are wired, and where their metadata lives.
//
// The caller (Engine) pauses the workers around every call that changes something.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "host/module.h"

namespace e2 {

class Graph {
 public:
  using Modules = std::map<std::string, std::unique_ptr<Module>>;

  Status create(const std::string& name, const std::string& class_name, const Args& args,
                Host& host);
  // The module's packets go back to the pool through `ctx`.
  Status destroy(const std::string& name, Context& ctx);
  Status connect(const std::string& from, uint64_t out_gate, const std::string& to,
                 uint64_t in_gate, bool count);
  Status disconnect(const std::string& name, uint64_t out_gate);
  void clear(Context& ctx);

  // Gives every attribute its offset. `strict`: a module that a task reaches and that reads what
  // nothing upstream writes is an error, naming the module and the attribute.
  Status assign_metadata(bool strict);

  Module* find(const std::string& name) const;
  const Modules& modules() const { return modules_; }

  // What the outside may see of a module's wiring.
  static const std::vector<std::unique_ptr<OutGate>>& out_gates(const Module& module) {
    return module.out_gates_;
  }
  static const std::vector<std::unique_ptr<InGate>>& in_gates(const Module& module) {
    return module.in_gates_;
  }
  using Upstream = std::vector<Module::Pressure>;
  static bool may_overload(const Module& module) { return module.may_overload_; }
  // The tasks that `module` stops while it is overloaded, from now on.
  static void set_upstream(Module& module, Upstream upstream);
  static void set_bell(Module& module, std::shared_ptr<Bell> bell) {
    module.bell_ = std::move(bell);
  }
  // The hooks at a gate, or nullptr where nothing is connected; after a change, `hooks_changed`.
  static std::vector<std::unique_ptr<GateHook>>* hooks_at(Module& module, bool out, uint64_t gate);
  static void hooks_changed(Module& module, bool out, uint64_t gate);

  // Runs packets through one module alone: every gate that leads nowhere is collected instead.
  // Metadata starts as zeros. For tests and tools; no worker may be running.
  Status run_packets(const std::string& name, Gate in_gate, const std::vector<std::string>& packets,
                     Context& ctx, std::map<int, std::vector<std::string>>& out);

 private:
  static void set_out(Module& owner, Gate index, std::unique_ptr<OutGate> gate);
  void unlink(OutGate& gate);
  static void refresh_hooked(InGate& gate);

  Modules modules_;
};

}  // namespace e2
