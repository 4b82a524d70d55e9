// SPDX-License-Identifier: BSD-3-Clause
// What a module class says about itself, and the small types that modules share with every host.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "host/args.h"
#include "host/batch.h"
#include "host/status.h"

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

using Gate = uint16_t;
constexpr Gate kMaxGates = 8192;
constexpr Gate kDropBase = 0xff00;  // gates at or above it are drop reasons
constexpr uint32_t kMaxDropReasons = 32;
constexpr uint32_t kMaxWorkers = 64;
constexpr uint32_t kAnyWorkers = kMaxWorkers;
constexpr int kNoOffset = -1;

class Module;
class Port;

// The drop reason that every module has: a packet sent to a gate that leads nowhere.
constexpr uint32_t kReasonNoGate = 0;
// The graph is too deep, or has a loop without a queue in it.
constexpr uint32_t kReasonLoop = 1;
constexpr Gate drop_gate(uint32_t reason) { return static_cast<Gate>(kDropBase + reason); }

// Asks for each packet's gate.
template <typename GateOf>
inline bool all_leave_by_0(Batch& batch, Gate* gates, GateOf gate_of) {
  uint32_t any = 0;
  for (uint32_t i = 0; i < batch.size; ++i) any |= gates[i] = gate_of(*batch[i]);
  return any == 0;
}

// wyrand: uniform, fast, and good enough for load splitting; never for secrets. Draws depend on
// each other by one addition only. A loop works on a copy, which stays in a register, and puts it
// back.
struct Random {
  static constexpr uint64_t kStep = 0xa0761d6478bd642fULL;
  uint64_t state = kStep;

  uint64_t next() {
    __extension__ using Product = unsigned __int128;
    state += kStep;
    const Product product = static_cast<Product>(state) * (state ^ 0xe7037ed1a0b428dbULL);
    return static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
  }
  // In [0, 1).
  double real() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // Below `range`, which is at most 2^32.
  uint32_t below(uint64_t range) { return static_cast<uint32_t>((next() >> 32) * range >> 32); }
};

// Nanoseconds on a monotonic clock that all workers share; cheap enough for once a batch.
uint64_t clock_ns();

// What one run of a task did; `block` asks the scheduler to look elsewhere first.
struct TaskResult {
  bool block = false;
  uint32_t packets = 0;
  uint64_t bits = 0;
};

// kMayRead: where no module upstream writes the attribute, its offset is kNoOffset; the others need
// one that does.
enum class Access : uint8_t { kRead, kWrite, kUpdate, kMayRead };

struct Attribute {
  std::string name;
  uint32_t size_bytes = 0;
  Access access = Access::kRead;
};

struct Command {
  const char* name;
  const char* arg_type;
  const char* response_type;
  bool thread_safe;
  std::function<Status(Module&, const Args&, Args&)> run;
};

// Turns a member function `Status f(const Args&, Args& response)` into a command's function.
template <typename M>
std::function<Status(Module&, const Args&, Args&)> command(Status (M::*method)(const Args&,
                                                                               Args&)) {
  return [method](Module& module, const Args& args, Args& response) {
    return (static_cast<M&>(module).*method)(args, response);
  };
}

struct ModuleClass {
  const char* name;
  const char* name_template;
  const char* help;
  const char* arg_type;
  Gate max_in_gates;
  Gate max_out_gates;
  std::vector<Command> commands;
  std::function<std::unique_ptr<Module>()> make;
  // How many workers may run one module at a time. More than 1 only where all that `process` and
  // `run_task` change is kept per worker or atomic: whoever resumes more is refused.
  uint32_t max_workers = 1;
  // Only its own tasks run what follows it: whoever delivers to it goes no further (a queue).
  bool ends_tasks = false;
  // Workers leave by gates of their own: the module says which (leads_to).
  bool splits_workers = false;
  // Its own tasks send nothing: they run no other module (a monitor).
  bool silent_tasks = false;
};

template <typename M>
std::unique_ptr<Module> make_module() {
  return std::make_unique<M>();
}

// Resolves names that a module's arguments mention; the host implements it.
class Host {
 public:
  virtual ~Host() = default;
  // The port of that name, or nullptr.
  virtual Port* find_port(const std::string& name) = 0;
  // The module of that name, or nullptr. It may be destroyed before the one that asked: keep only
  // what outlives it, like the handle of its Occupancy.
  virtual Module* find_module(const std::string& name) = 0;
};

}  // namespace e2
#pragma GCC visibility pop
