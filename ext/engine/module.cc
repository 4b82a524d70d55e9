// SPDX-License-Identifier: BSD-3-Clause
// The embedded host's half of Module: emission, drops, counters, and the registries of classes.
#include "host/module.h"

#include <map>
#include <utility>

#include "engine/clock.h"
#include "engine/gate_split.h"
#include "engine/registry.h"
#include "host/port.h"

namespace e2 {
namespace {

// Function-local so that registrations in other files may run before anything here is initialised.
std::map<std::string, ModuleClass>& module_registry() {
  static std::map<std::string, ModuleClass> registry;
  return registry;
}

std::map<std::string, PortClass>& port_registry() {
  static std::map<std::string, PortClass> registry;
  return registry;
}

template <typename T>
std::vector<const T*> values(const std::map<std::string, T>& registry) {
  std::vector<const T*> all;
  all.reserve(registry.size());
  for (const auto& entry : registry) all.push_back(&entry.second);
  return all;
}

template <typename T>
const T* lookup(const std::map<std::string, T>& registry, const std::string& name) {
  const auto it = registry.find(name);
  return it == registry.end() ? nullptr : &it->second;
}

std::string& refusal() {
  static std::string reason;
  return reason;
}

// The name under which the class is known from now on; empty where it is refused.
template <typename T>
std::string enter(std::map<std::string, T>& registry, const T& of_class, uint64_t layout) {
  if (layout != kHostLayout) {
    refusal() = "it was built with the headers of another version; build it again";
    return "";
  }
  if (registry.emplace(of_class.name, of_class).second) return of_class.name;
  refusal() = std::string("class '") + of_class.name + "' exists already; choose another name";
  return "";
}

}  // namespace

ModuleRegistration::ModuleRegistration(const ModuleClass& module_class, uint64_t layout)
    : name_(enter(module_registry(), module_class, layout)) {}
ModuleRegistration::~ModuleRegistration() { module_registry().erase(name_); }
const ModuleClass* find_module_class(const std::string& name) {
  return lookup(module_registry(), name);
}
std::vector<const ModuleClass*> module_classes() { return values(module_registry()); }

PortRegistration::PortRegistration(const PortClass& port_class, uint64_t layout)
    : name_(enter(port_registry(), port_class, layout)) {}
PortRegistration::~PortRegistration() { port_registry().erase(name_); }
const PortClass* find_port_class(const std::string& name) { return lookup(port_registry(), name); }
std::vector<const PortClass*> port_classes() { return values(port_registry()); }

std::string take_refusal() { return std::exchange(refusal(), ""); }

Module::Module() : drop_reasons_{"no gate", "loop"}, counts_(new WorkerCount[kMaxWorkers]) {}

Module::~Module() { set_overloaded(false); }

void Module::set_overloaded(bool overloaded) {
  if (overloaded_.load(std::memory_order_relaxed) == overloaded) return;
  if (overloaded_.exchange(overloaded, std::memory_order_relaxed) == overloaded) return;
  for (const Pressure& task : upstream_) {
    task->fetch_add(overloaded ? 1 : -1, std::memory_order_relaxed);
  }
}

std::vector<std::string> Module::exclusive(uint32_t, const std::vector<uint64_t>&) const {
  return {};
}

bool Module::leads_to(uint32_t, Gate) const { return true; }

Status GateHook::command(const std::string& command, const Args&, Args&) {
  return Status::error(ENOTSUP, "'" + class_name + "' does not support command '" + command + "'");
}

Status Module::init(Host&, const Args&) { return {}; }
void Module::process(Context& ctx, Batch& batch, Gate) { drop(ctx, batch, kReasonNoGate); }
TaskResult Module::run_task(Context&, uint64_t) { return {true, 0, 0}; }
void Module::release(Context&) {}

size_t Module::add_attr(std::string name, uint32_t size_bytes, Access access) {
  attributes_.push_back({std::move(name), size_bytes, access});
  attr_offsets_.push_back(kNoOffset);
  return attributes_.size() - 1;
}

uint32_t Module::add_drop_reason(std::string reason) {
  drop_reasons_.push_back(std::move(reason));
  return static_cast<uint32_t>(drop_reasons_.size() - 1);
}

uint64_t Module::drops(uint32_t reason) const {
  uint64_t sum = 0;
  for (uint32_t w = 0; w < kMaxWorkers; ++w) sum += drops_by(w, reason);
  return sum;
}

Profile Module::profile() const {
  Profile sum;
  for (uint32_t w = 0; w < kMaxWorkers; ++w) {
    const Profile& one = counts_[w].profile;
    sum.packets += one.packets;
    sum.cycles += one.cycles;
    sum.task_packets += one.task_packets;
    sum.task_cycles += one.task_cycles;
    sum.idle_cycles += one.idle_cycles;
    sum.overhead_cycles += one.overhead_cycles;
  }
  // The overhead is an average: where next to nothing is left without it, it was less.
  for (uint64_t* cycles : {&sum.cycles, &sum.task_cycles, &sum.idle_cycles}) {
    if (static_cast<int64_t>(*cycles) >= 0) continue;
    sum.overhead_cycles += *cycles;
    *cycles = 0;
  }
  return sum;
}

void Module::note_run(const Context& ctx, uint64_t cycles, uint32_t packets) {
  Profile& profile = counts_[ctx.wid].profile;
  const uint64_t own = cycles - ctx.child_cycles;
  profile.task_packets += packets;
  (packets == 0 ? profile.idle_cycles : profile.task_cycles) += own;
}

uint32_t Module::add_event(std::string kind, std::vector<std::string> values) {
  if (events_ == nullptr) events_ = std::make_unique<EventRing>();
  event_types_.push_back({std::move(kind), std::move(values)});
  return static_cast<uint32_t>(event_types_.size() - 1);
}

void Module::drop(Context& ctx, Packet* packet, uint32_t reason) {
  ++counts_[ctx.wid].drops[reason];
  ctx.free(&packet, 1);
}

void Module::drop(Context& ctx, Batch& batch, uint32_t reason) {
  counts_[ctx.wid].drops[reason] += batch.size;
  ctx.free(batch);
}

void Module::deliver_watched(Context& ctx, Batch& batch, OutGate& gate) {
  if (gate.count_bytes) {
    uint64_t bytes = 0;
    for (const Packet* packet : batch) bytes += packet->len();
    gate.counts[ctx.wid].bytes += bytes;
  }
  for (const auto& hook : gate.hooks) hook->process(ctx, batch);
  for (const auto& hook : gate.in->hooks) hook->process(ctx, batch);
  Module& next = *gate.next;
  if (!ctx.profile) {
    next.process(ctx, batch, gate.in->index);
    return;
  }
  Profile& profile = next.counts_[ctx.wid].profile;
  const ProfileCost cost = ctx.profile_cost;
  const uint32_t size = batch.size;
  const uint64_t above = ctx.child_cycles;
  ctx.child_cycles = 0;
  const uint64_t start = read_tsc();
  next.process(ctx, batch, gate.in->index);
  const uint64_t spent = read_tsc() - start;
  profile.cycles += spent - ctx.child_cycles - cost.inside;
  profile.packets += size;
  profile.overhead_cycles += cost.inside + cost.outside;
  ctx.child_cycles = above + spent + cost.outside;
}

void Module::emit(Context& ctx, Batch& batch, Gate gate) {
  if (batch.empty()) return;
  OutGate* const to = gate == 0                  ? first_out_
                      : gate < out_gates_.size() ? out_gates_[gate].get()
                                                 : nullptr;
  if (to == nullptr) {
    drop(ctx, batch, gate >= kDropBase ? gate - kDropBase : kReasonNoGate);
    return;
  }
  if (__builtin_frame_address(0) < ctx.stack_floor) {
    drop(ctx, batch, kReasonLoop);
    return;
  }
  OutGate& out = *to;
  if (out.count_packets) {
    GateCount& count = out.counts[ctx.wid];
    ++count.batches;
    count.packets += batch.size;
  }
  if (out.hooked || out.count_bytes || ctx.profile) {
    deliver_watched(ctx, batch, out);
  } else {
    out.next->process(ctx, batch, out.next_in);
  }
  batch.clear();
}

void Module::emit_by_gate(Context& ctx, Batch& batch, const Gate* gates) {
  split_by_gate(batch, gates, [&](Batch& part, Gate gate) { emit(ctx, part, gate); });
}

}  // namespace e2
