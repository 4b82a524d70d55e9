// SPDX-License-Identifier: BSD-3-Clause
// Gate hooks: `Track` counts what crosses a gate (packets by default, bytes with `bits`); others
// record it (recording_hooks.h).
#include <algorithm>

#include "engine/engine.h"
#include "engine/recording_hooks.h"

namespace e2 {
namespace {

constexpr const char* kReset = "reset";

bool is_output(const Args& hook) { return hook["direction"].as_string() != "igate"; }

// Who counts what crosses that gate: an input has no counters of its own.
std::vector<OutGate*> counted_at(Module& module, bool out, uint64_t gate) {
  if (out) return {Graph::out_gates(module)[gate].get()};
  return Graph::in_gates(module)[gate]->sources;
}

Status no_such_gate(const Module& module, bool out, uint64_t gate) {
  return Status::error(ENOENT, std::string(out ? "Output" : "Input") + " gate '" +
                                   std::to_string(gate) + "' not found in '" + module.name() + "'");
}

Args hook_entry(const std::string& class_name, const std::string& name, const std::string& module,
                const char* direction, Gate gate, Args args) {
  Args hook;
  hook.set("class_name", class_name);
  hook.set("hook_name", name);
  hook.set("module_name", module);
  hook.set("direction", direction);
  hook.set("gate", static_cast<uint64_t>(gate));
  hook.set("args", std::move(args));
  return hook;
}

}  // namespace

const std::vector<GateHookClass>& gate_hook_classes() {
  static const std::vector<HookCommand> stats = {{kGetStats, "EmptyArg", "GateHookStats"}};
  static const std::vector<GateHookClass> classes = {
      {kTrack,
       "track",
       "counts the batches, packets and (with bits) bytes that cross a gate",
       "TrackArg",
       {{kReset, "EmptyArg", "EmptyArg"}},
       nullptr},
      {"TcpDump", "tcpdump", "writes the packets that cross a gate to a named pipe, as pcap",
       "TcpdumpArg", stats, [] { return std::make_unique<TcpdumpHook>(); }},
      {"PcapNg", "pcapng",
       "writes the packets that cross a gate, and their metadata, to a named pipe, as pcapng",
       "PcapngArg", stats, [] { return std::make_unique<PcapngHook>(); }},
      {"Capture", "capture",
       "writes the packets that cross a gate to a pcap file or a named pipe, all or those of a "
       "filter",
       "CaptureArg", stats, [] { return std::make_unique<CaptureHook>(); }}};
  return classes;
}

const GateHookClass* find_gate_hook_class(const std::string& name) {
  for (const GateHookClass& c : gate_hook_classes()) {
    if (name == c.name) return &c;
  }
  return nullptr;
}

Status Engine::track_gates(const Args& hook, bool enable) {
  const std::string& module_name = hook["module_name"].as_string();
  const bool out = is_output(hook);
  const int64_t gate = hook["gate"].as_int(-1);
  const bool every_module = module_name.empty() || module_name == "*";
  if (!every_module && graph_.find(module_name) == nullptr) {
    return Status::error(ENOENT, "No module '" + module_name + "' found");
  }
  const bool bytes = enable && hook["args"]["bits"].as_bool();
  for (const auto& entry : graph_.modules()) {
    Module& module = *entry.second;
    if (!every_module && entry.first != module_name) continue;
    const size_t gates = out ? Graph::out_gates(module).size() : Graph::in_gates(module).size();
    const size_t first = gate < 0 ? 0 : static_cast<size_t>(gate);
    const size_t end = gate < 0 ? gates : first + 1;
    for (size_t g = first; g < end; ++g) {
      if (Graph::hooks_at(module, out, g) == nullptr) {
        if (gate >= 0 && !every_module) return no_such_gate(module, out, g);
        continue;
      }
      for (OutGate* counted : counted_at(module, out, g)) {
        counted->count_packets = enable;
        counted->count_bytes = bytes;
      }
    }
  }
  return {};
}

Status Engine::hook_gate(const GateHookClass& hook_class, const Args& hook, bool enable,
                         std::string& name) {
  Module* module = graph_.find(hook["module_name"].as_string());
  const int64_t gate = hook["gate"].as_int(-1);
  if (module == nullptr || gate < 0) {
    return Status::invalid(std::string("a ") + hook_class.name +
                           " hook needs the name of a module and one gate of it");
  }
  const bool out = is_output(hook);
  auto* hooks = Graph::hooks_at(*module, out, static_cast<uint64_t>(gate));
  if (hooks == nullptr) return no_such_gate(*module, out, static_cast<uint64_t>(gate));
  name = hook["hook_name"].as_string();
  if (name.empty()) name = hook_class.hook_name;
  const auto found = std::find_if(hooks->begin(), hooks->end(),
                                  [&](const auto& other) { return other->name == name; });
  if (!enable) {
    if (found == hooks->end()) {
      return Status::error(ENOENT, "no hook '" + name + "' at that gate");
    }
    Status status = (*found)->close();
    hooks->erase(found);
    Graph::hooks_changed(*module, out, static_cast<uint64_t>(gate));
    return status;
  }
  if (found != hooks->end()) {
    return Status::error(EEXIST, "hook '" + name + "' is at that gate already");
  }
  auto made = hook_class.make();
  made->class_name = hook_class.name;
  made->name = name;
  Status status = made->init(*module, hook["args"]);
  if (!status.ok()) return status;
  hooks->push_back(std::move(made));
  Graph::hooks_changed(*module, out, static_cast<uint64_t>(gate));
  return {};
}

Status Engine::configure_hook(const Args& hook, bool enable, std::string& name) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::string& class_name = hook["class_name"].as_string();
  const GateHookClass* hook_class = find_gate_hook_class(class_name);
  if (hook_class == nullptr) {
    return Status::error(ENOENT, "No gate hook class '" + class_name + "' found");
  }
  const int64_t gate = hook["gate"].as_int(-1);
  if (gate >= kMaxGates) {
    return Status::invalid("gate " + std::to_string(gate) + " is out of range");
  }
  const Paused paused(*this);
  if (hook_class->make != nullptr) return hook_gate(*hook_class, hook, enable, name);
  name = hook_class->hook_name;
  return track_gates(hook, enable);
}

Status Engine::hook_command(const Args& hook, const std::string& command, const Args& args,
                            Args& response) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::string& module_name = hook["module_name"].as_string();
  const std::string& name = hook["hook_name"].as_string();
  const auto gate = static_cast<uint64_t>(hook["gate"].as_int(-1));
  const bool out = is_output(hook);
  Module* module = graph_.find(module_name);
  if (module == nullptr) return Status::error(ENOENT, "No module '" + module_name + "' found");
  const std::string where =
      module_name + ": " + (out ? "ogate " : "igate ") + std::to_string(hook["gate"].as_int(-1));
  auto* hooks = Graph::hooks_at(*module, out, gate);
  if (hooks == nullptr) return Status::invalid(where + " does not exist");
  // What hooks tell of themselves is atomic: nobody has to stop for it.
  for (const auto& at : *hooks) {
    if (at->name == name) return at->command(command, args, response);
  }
  const Paused paused(*this);
  const auto counted = counted_at(*module, out, gate);
  if (name != find_gate_hook_class(kTrack)->hook_name || !counted[0]->count_packets) {
    return Status::error(ENOENT, where + " has no hook named '" + name + "'");
  }
  if (command != kReset) {
    return Status::error(
        ENOTSUP, std::string("'") + kTrack + "' does not support command '" + command + "'");
  }
  for (OutGate* at : counted) std::fill_n(at->counts.get(), kMaxWorkers, GateCount{});
  return {};
}

Args Engine::hooks() {
  std::lock_guard<std::mutex> lock(mutex_);
  Args::List list;
  for (const auto& entry : graph_.modules()) {
    for (const auto& gate : Graph::out_gates(*entry.second)) {
      if (gate == nullptr) continue;
      if (gate->count_packets) {
        Args args;
        args.set("bits", gate->count_bytes);
        list.push_back(hook_entry(kTrack, find_gate_hook_class(kTrack)->hook_name, entry.first,
                                  "ogate", gate->index, std::move(args)));
      }
      for (const auto& hook : gate->hooks) {
        list.push_back(hook_entry(hook->class_name, hook->name, entry.first, "ogate", gate->index,
                                  hook->describe()));
      }
    }
    for (const auto& gate : Graph::in_gates(*entry.second)) {
      if (gate == nullptr) continue;
      for (const auto& hook : gate->hooks) {
        list.push_back(hook_entry(hook->class_name, hook->name, entry.first, "igate", gate->index,
                                  hook->describe()));
      }
    }
  }
  return list;
}

}  // namespace e2
