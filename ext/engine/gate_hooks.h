// SPDX-License-Identifier: BSD-3-Clause
// The classes of gate hooks that there are, by name: counting, and recording what crosses a gate.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "host/module.h"

namespace e2 {

constexpr const char* kTrack = "Track";

struct HookCommand {
  const char* name;
  const char* arg_type;
  const char* response_type;
};

struct GateHookClass {
  const char* name;
  const char* hook_name;  // of a hook that is given none
  const char* help;
  const char* arg_type;
  std::vector<HookCommand> commands;
  // Empty for Track, whose counters every gate has.
  std::function<std::unique_ptr<GateHook>()> make;
};

const std::vector<GateHookClass>& gate_hook_classes();
const GateHookClass* find_gate_hook_class(const std::string& name);

}  // namespace e2
