// SPDX-License-Identifier: BSD-3-Clause
// Gate numbers in arguments: 0..8191 name a gate, 8192 drops (as in BESS).
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "host/module.h"

namespace e2 {

// Reads a gate number; 8192 becomes `drop`, the module's drop gate for that case.
inline Status read_gate(const Args& arg, const std::string& where, Gate drop, Gate& gate) {
  const uint64_t value = arg.as_uint();
  if (value > kMaxGates || std::holds_alternative<std::string>(arg.value())) {
    return Status::invalid(where + ": not a gate; must be a number from 0 to " +
                           std::to_string(kMaxGates - 1) + ", or " + std::to_string(kMaxGates) +
                           " to drop");
  }
  gate = value == kMaxGates ? drop : static_cast<Gate>(value);
  return {};
}

// Reads a list of gates; `gates` changes only on success.
inline Status read_gates(const Args::List& list, const std::string& where, size_t most, Gate drop,
                         std::vector<Gate>& gates) {
  if (list.size() > most) {
    return Status::invalid(where + ": has " + std::to_string(list.size()) +
                           " gates; must have at most " + std::to_string(most));
  }
  std::vector<Gate> read(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    Status status = read_gate(list[i], where + "[" + std::to_string(i) + "]", drop, read[i]);
    if (!status.ok()) return status;
  }
  gates = std::move(read);
  return {};
}

// The number that stands for `gate` in arguments and results.
inline uint64_t gate_number(Gate gate) { return gate >= kDropBase ? kMaxGates : gate; }

}  // namespace e2
