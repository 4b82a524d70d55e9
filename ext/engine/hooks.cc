// SPDX-License-Identifier: BSD-3-Clause
// Gate hooks: `Track` counts what crosses a gate (packets by default, bytes with `bits`).
#include "engine/engine.h"

namespace e2 {
namespace {

constexpr const char* kTrack = "Track";

}  // namespace

Status Engine::hook_one(const Args& hook, Module& module, bool out, Gate gate, bool enable,
                        std::string& name) {
  const bool bytes = enable && hook["args"]["bits"].as_bool();
  const auto set = [&](OutGate& at) {
    at.count_packets = enable;
    at.count_bytes = bytes;
  };
  if (out) {
    const auto& gates = Graph::out_gates(module);
    if (gate >= gates.size() || gates[gate] == nullptr) {
      return Status::error(ENOENT, "Output gate '" + std::to_string(gate) + "' not found in '" +
                                       module.name() + "'");
    }
    set(*gates[gate]);
  } else {
    const auto& gates = Graph::in_gates(module);
    if (gate >= gates.size() || gates[gate] == nullptr) {
      return Status::error(
          ENOENT, "Input gate '" + std::to_string(gate) + "' not found in '" + module.name() + "'");
    }
    for (OutGate* source : gates[gate]->sources) set(*source);
  }
  name = "track";
  return {};
}

Status Engine::configure_hook(const Args& hook, bool enable, std::string& name) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (hook["class_name"].as_string() != kTrack) {
    return Status::error(ENOENT, "No gate hook class '" + hook["class_name"].as_string() +
                                     "' found; there is " + kTrack);
  }
  const std::string& module_name = hook["module_name"].as_string();
  const bool out = hook["direction"].as_string() != "igate";
  const int64_t gate = hook["gate"].as_int(-1);
  if (gate >= kMaxGates)
    return Status::invalid("gate " + std::to_string(gate) + " is out of range");
  const Paused paused(*this);
  const bool every_module = module_name.empty() || module_name == "*";
  if (!every_module && graph_.find(module_name) == nullptr) {
    return Status::error(ENOENT, "No module '" + module_name + "' found");
  }
  for (const auto& entry : graph_.modules()) {
    Module& module = *entry.second;
    if (!every_module && entry.first != module_name) continue;
    if (gate >= 0) {
      Status status = hook_one(hook, module, out, static_cast<Gate>(gate), enable, name);
      if (!status.ok() && !every_module) return status;
      continue;
    }
    const size_t gates = out ? Graph::out_gates(module).size() : Graph::in_gates(module).size();
    for (size_t g = 0; g < gates; ++g) {
      const bool wired =
          out ? Graph::out_gates(module)[g] != nullptr : Graph::in_gates(module)[g] != nullptr;
      if (!wired) continue;
      Status status = hook_one(hook, module, out, static_cast<Gate>(g), enable, name);
      if (!status.ok()) return status;
    }
  }
  return {};
}

Args Engine::hooks() {
  std::lock_guard<std::mutex> lock(mutex_);
  Args::List list;
  for (const auto& entry : graph_.modules()) {
    for (const auto& gate : Graph::out_gates(*entry.second)) {
      if (gate == nullptr || !gate->count_packets) continue;
      Args args;
      args.set("bits", gate->count_bytes);
      Args hook;
      hook.set("class_name", kTrack);
      hook.set("hook_name", "track");
      hook.set("module_name", entry.first);
      hook.set("direction", "ogate");
      hook.set("gate", static_cast<uint64_t>(gate->index));
      hook.set("args", std::move(args));
      list.push_back(std::move(hook));
    }
  }
  return list;
}

}  // namespace e2
