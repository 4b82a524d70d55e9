// SPDX-License-Identifier: BSD-3-Clause
// Gate hooks: `Track` counts what crosses a gate (packets by default, bytes with `bits`); `Capture`
// writes it to a pcap file (capture_hook.h).
#include <algorithm>

#include "engine/capture_hook.h"
#include "engine/engine.h"

namespace e2 {
namespace {

constexpr const char* kTrack = "Track";
constexpr const char* kTrackName = "track";
constexpr const char* kCapture = "Capture";
constexpr const char* kDefaultCaptureName = "capture";

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

Status Engine::track_gate(const Args& hook, Module& module, bool out, uint64_t gate, bool enable) {
  const bool bytes = enable && hook["args"]["bits"].as_bool();
  const auto set = [&](OutGate& at) {
    at.count_packets = enable;
    at.count_bytes = bytes;
  };
  if (Graph::hooks_at(module, out, gate) == nullptr) return no_such_gate(module, out, gate);
  if (out) {
    set(*Graph::out_gates(module)[gate]);
  } else {
    for (OutGate* source : Graph::in_gates(module)[gate]->sources) set(*source);
  }
  return {};
}

Status Engine::capture_gate(const Args& hook, bool enable, std::string& name) {
  Module* module = graph_.find(hook["module_name"].as_string());
  const int64_t gate = hook["gate"].as_int(-1);
  if (module == nullptr || gate < 0) {
    return Status::invalid("a Capture hook needs the name of a module and one gate of it");
  }
  const bool out = hook["direction"].as_string() != "igate";
  auto* hooks = Graph::hooks_at(*module, out, static_cast<uint64_t>(gate));
  if (hooks == nullptr) return no_such_gate(*module, out, static_cast<uint64_t>(gate));
  name = hook["hook_name"].as_string();
  if (name.empty()) name = kDefaultCaptureName;
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
  auto capture = std::make_unique<CaptureHook>();
  capture->class_name = kCapture;
  capture->name = name;
  Status status = capture->init(hook["args"]);
  if (!status.ok()) return status;
  hooks->push_back(std::move(capture));
  Graph::hooks_changed(*module, out, static_cast<uint64_t>(gate));
  return {};
}

std::vector<GateHookClass> Engine::hook_classes() {
  return {
      {kTrack, "counts the batches, packets and (with bits) bytes that cross a gate", "TrackArg"},
      {kCapture, "writes the packets that cross a gate to a pcap file, all or those of a filter",
       "CaptureArg"}};
}

Status Engine::configure_hook(const Args& hook, bool enable, std::string& name) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::string& class_name = hook["class_name"].as_string();
  if (class_name == kCapture) {
    const Paused paused(*this);
    return capture_gate(hook, enable, name);
  }
  if (class_name != kTrack) {
    return Status::error(ENOENT, "No gate hook class '" + class_name + "' found; there are " +
                                     kTrack + " and " + kCapture);
  }
  name = kTrackName;
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
      Status status = track_gate(hook, module, out, static_cast<uint64_t>(gate), enable);
      if (!status.ok() && !every_module) return status;
      continue;
    }
    const size_t gates = out ? Graph::out_gates(module).size() : Graph::in_gates(module).size();
    for (size_t g = 0; g < gates; ++g) {
      const bool wired =
          out ? Graph::out_gates(module)[g] != nullptr : Graph::in_gates(module)[g] != nullptr;
      if (!wired) continue;
      Status status = track_gate(hook, module, out, g, enable);
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
      if (gate == nullptr) continue;
      if (gate->count_packets) {
        Args args;
        args.set("bits", gate->count_bytes);
        list.push_back(
            hook_entry(kTrack, kTrackName, entry.first, "ogate", gate->index, std::move(args)));
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
