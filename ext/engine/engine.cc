// SPDX-License-Identifier: BSD-3-Clause
// Modules of an Engine. Workers are in worker_control.cc, ports in port_control.cc, traffic classes
// in scheduling.cc, hooks in hooks.cc, plugins in plugins.cc, events in event_log.cc, all counters
// at once in counters.cc.
#include "engine/engine.h"

#include <dlfcn.h>

#include "engine/clock.h"
#include "engine/counters.h"
#include "engine/profile.h"

namespace e2 {
namespace {

// Answered by every module, whatever its class: counters that BESS's protocol has no place for.
constexpr const char* kStatsCommand = "e2_stats";
constexpr const char* kProfileCommand = "e2_profile";

const char* access_name(Access access) {
  static constexpr const char* kNames[] = {"read", "write", "update", "read"};
  return kNames[static_cast<uint8_t>(access)];
}

void add_counts(Args& to, const GateCount& count) {
  to.set("cnt", count.batches);
  to.set("pkts", count.packets);
  to.set("bytes", count.bytes);
}

void add_hook(Args::List& list, const std::string& class_name, const std::string& name) {
  Args::List names;
  names.emplace_back(class_name);
  names.emplace_back(name);
  list.emplace_back(std::move(names));
}

// Class and name of each hook at a gate; `counts`: it counts what crosses it.
Args hook_list(const std::vector<std::unique_ptr<GateHook>>& hooks, bool counts) {
  Args::List list;
  if (counts) add_hook(list, kTrack, find_gate_hook_class(kTrack)->hook_name);
  for (const auto& hook : hooks) add_hook(list, hook->class_name, hook->name);
  return list;
}

}  // namespace

Engine::Engine(uint32_t pool_packets, uint32_t buffer_bytes)
    : pool_(pool_packets, buffer_bytes), control_cache_(new PoolCache) {
  control_.pool = &pool_;
  control_.pool_cache = control_cache_.get();
}

Engine::~Engine() {
  workers_.clear();
  graph_.clear(control_);
  for (auto& entry : ports_) (void)entry.second->close();
  ports_.clear();
  for (auto& entry : plugins_) dlclose(entry.second.handle);  // nothing of theirs is left
}

Status Engine::create_module(const std::string& name, const std::string& class_name,
                             const Args& args) {
  std::lock_guard<std::mutex> lock(mutex_);
  Status status = graph_.create(name, class_name, args, *this);
  if (!status.ok()) return status;
  Module* module = graph_.find(name);
  for (size_t i = 0; i < module->task_args().size(); ++i) {
    auto leaf =
        std::make_unique<TrafficClass>("!leaf_" + name + ":" + std::to_string(i), Policy::kLeaf);
    leaf->module = module;
    leaf->task_index = i;
    tcs_[leaf->name()] = std::move(leaf);
  }
  return {};
}

Status Engine::destroy_module(const std::string& name) {
  std::lock_guard<std::mutex> lock(mutex_);
  Module* module = graph_.find(name);
  if (module == nullptr) return Status::error(ENOENT, "No module '" + name + "' found");
  const Paused paused(*this);
  remove_leaves(module);
  fetch_events();
  return graph_.destroy(name, control_);
}

Status Engine::connect(const std::string& from, uint64_t out_gate, const std::string& to,
                       uint64_t in_gate, bool count) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Paused paused(*this);
  Status status = graph_.connect(from, out_gate, to, in_gate, count);
  if (!status.ok() || !paused.any()) return status;
  status = check_placement();
  if (status.ok()) status = graph_.assign_metadata(false);
  if (!status.ok()) (void)graph_.disconnect(from, out_gate);
  return status;
}

Status Engine::disconnect(const std::string& name, uint64_t out_gate) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Paused paused(*this);
  return graph_.disconnect(name, out_gate);
}

Status Engine::module_command(const std::string& name, const std::string& command, const Args& args,
                              Args& response) {
  std::lock_guard<std::mutex> lock(mutex_);
  Module* module = graph_.find(name);
  if (module == nullptr) return Status::error(ENOENT, "No module '" + name + "' found");
  if (command == kStatsCommand) {
    const Profile profile = module->profile();
    response.set("packets", profile.packets);
    response.set("cycles", profile.cycles);
    response.set("task_packets", profile.task_packets);
    response.set("task_cycles", profile.task_cycles);
    response.set("idle_cycles", profile.idle_cycles);
    response.set("overhead_cycles", profile.overhead_cycles);
    response.set("drops", drop_counts(*module, false));
    return {};
  }
  if (command == kProfileCommand) {
    const Paused paused(*this);
    profile_ = args["enable"].as_bool();
    if (profile_) profile_cost_ = measure_profile_cost();
    for (auto& entry : workers_) entry.second->set_profile(profile_, profile_cost_);
    return {};
  }
  for (const Command& known : module->module_class().commands) {
    if (command != known.name) continue;
    if (known.thread_safe) return known.run(*module, args, response);
    Paused paused(*this);
    Status status = known.run(*module, args, response);
    if (!status.ok() || !paused.any() || !module->module_class().splits_workers) return status;
    status = check_placement();
    if (status.ok()) return status;
    paused.stay_paused();
    return Status::error(status.code, status.message + "; until then all workers are paused");
  }
  return Status::error(
      ENOTSUP, "'" + command + "' is not supported by class '" + module->module_class().name + "'");
}

std::vector<Command> Engine::common_commands() {
  return {{kStatsCommand, "ModuleStatsArg", "ModuleStats", true, nullptr},
          {kProfileCommand, "ModuleProfileArg", "EmptyArg", true, nullptr}};
}

Args Engine::modules() {
  std::lock_guard<std::mutex> lock(mutex_);
  Args::List list;
  for (const auto& entry : graph_.modules()) {
    Args module;
    module.set("name", entry.first);
    module.set("mclass", entry.second->module_class().name);
    module.set("desc", entry.second->description());
    list.push_back(std::move(module));
  }
  return list;
}

Status Engine::class_of(const std::string& name, std::string& mclass) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Module* module = graph_.find(name);
  if (module == nullptr) return Status::error(ENOENT, "No module '" + name + "' found");
  mclass = module->module_class().name;
  return {};
}

Status Engine::module_info(const std::string& name, Args& info) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Module* module = graph_.find(name);
  if (module == nullptr) return Status::error(ENOENT, "No module '" + name + "' found");
  info.set("name", name);
  info.set("mclass", module->module_class().name);
  info.set("desc", module->description());

  Args::List igates;
  for (const auto& gate : Graph::in_gates(*module)) {
    if (gate == nullptr) continue;
    Args entry;
    entry.set("igate", static_cast<uint64_t>(gate->index));
    Args::List sources;
    GateCount sum;
    for (const OutGate* source : gate->sources) {
      Args from;
      from.set("ogate", static_cast<uint64_t>(source->index));
      from.set("name", source->owner->name());
      sources.push_back(std::move(from));
      const GateCount count = total(*source);
      sum.batches += count.batches;
      sum.packets += count.packets;
      sum.bytes += count.bytes;
    }
    entry.set("ogates", std::move(sources));
    add_counts(entry, sum);
    entry.set("hooks", hook_list(gate->hooks, false));
    igates.push_back(std::move(entry));
  }
  info.set("igates", std::move(igates));

  Args::List ogates;
  for (const auto& gate : Graph::out_gates(*module)) {
    if (gate == nullptr) continue;
    Args entry;
    entry.set("ogate", static_cast<uint64_t>(gate->index));
    entry.set("igate", static_cast<uint64_t>(gate->in->index));
    entry.set("name", gate->next->name());
    add_counts(entry, total(*gate));
    entry.set("hooks", hook_list(gate->hooks, gate->count_packets));
    ogates.push_back(std::move(entry));
  }
  info.set("ogates", std::move(ogates));

  Args::List metadata;
  for (size_t i = 0; i < module->attributes().size(); ++i) {
    const Attribute& attr = module->attributes()[i];
    Args entry;
    entry.set("name", attr.name);
    entry.set("size", static_cast<uint64_t>(attr.size_bytes));
    entry.set("mode", access_name(attr.access));
    entry.set("offset", module->attr_offset(i));
    metadata.push_back(std::move(entry));
  }
  info.set("metadata", std::move(metadata));
  info.set("deadends", module->drops(kReasonNoGate));
  info.set("drops", drop_counts(*module, true));
  return {};
}

Status Engine::run_packets(const std::string& name, Gate in_gate,
                           const std::vector<std::string>& packets,
                           std::map<int, std::vector<std::string>>& out, uint64_t now_ns) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Paused paused(*this);
  control_.stack_floor = find_stack_floor();
  control_.tsc = read_tsc();
  control_.now_ns = now_ns != 0 ? now_ns : monotonic_ns();
  return graph_.run_packets(name, in_gate, packets, control_, out);
}

Status Engine::reset_modules() {
  std::lock_guard<std::mutex> lock(mutex_);
  const Paused paused(*this);
  for (const auto& entry : graph_.modules()) remove_leaves(entry.second.get());
  fetch_events();
  graph_.clear(control_);
  return {};
}

Args Engine::mempool() {
  std::lock_guard<std::mutex> lock(mutex_);
  Args args;
  uint64_t available = pool_.available() + control_cache_->size;
  for (const auto& entry : workers_) available += entry.second->cached_packets();
  args.set("size", static_cast<uint64_t>(pool_.size()));
  args.set("available", available);
  args.set("in_use", pool_.size() - available);
  args.set("element_size", static_cast<uint64_t>(pool_.stride_bytes()));
  args.set("cache_size", static_cast<uint64_t>(kCachePackets));
  args.set("store_size", static_cast<uint64_t>(pool_.store_slots()));
  args.set("store_available", static_cast<uint64_t>(pool_.available()));
  args.set("store_bytes", static_cast<uint64_t>(pool_.store_bytes()));
  return args;
}

}  // namespace e2
