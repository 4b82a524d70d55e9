// SPDX-License-Identifier: BSD-3-Clause
// Which workers and tasks reach each module: whether that is safe, and who is told.
//
// A task reaches its own module and all that follows it, up to and with the first module that ends
// tasks (a queue) on every path. Silent tasks reach their own module only.
#include <set>

#include "engine/engine.h"

namespace e2 {
namespace {

using Workers = std::set<uint32_t>;

std::string names(const Workers& workers) {
  std::string text = workers.size() == 1 ? "worker " : "workers ";
  size_t left = workers.size();
  for (const uint32_t wid : workers) {
    text += std::to_string(wid);
    --left;
    text += left == 0 ? "" : left == 1 ? " and " : ", ";
  }
  return text;
}

std::string quoted_class(const Module& module) {
  return "module '" + module.name() + "' (" + module.module_class().name + ")";
}

}  // namespace

Engine::Placement Engine::placement() const {
  Placement placement;
  for (const auto& entry : graph_.modules()) placement[entry.second.get()];
  for (const auto& entry : tcs_) {
    TrafficClass& leaf = *entry.second;
    if (leaf.policy() != Policy::kLeaf) continue;
    const int wid = leaf.root()->wid;
    if (wid >= 0) {
      placement[leaf.module].tasks[static_cast<uint32_t>(wid)].push_back(
          leaf.module->task_args()[leaf.task_index]);
    }
    std::set<Module*> reached{leaf.module};
    std::vector<Module*> todo{leaf.module};
    while (!todo.empty()) {
      Module* at = todo.back();
      todo.pop_back();
      if (wid >= 0) placement[at].tasks[static_cast<uint32_t>(wid)];
      if (at != leaf.module) placement[at].upstream.push_back(&leaf);
      const ModuleClass& kind = at->module_class();
      if (at == leaf.module ? kind.silent_tasks : kind.ends_tasks) continue;
      const bool splits = wid >= 0 && kind.splits_workers;
      for (const auto& gate : Graph::out_gates(*at)) {
        if (gate == nullptr) continue;
        if (splits && !at->leads_to(static_cast<uint32_t>(wid), gate->index)) continue;
        if (reached.insert(gate->next).second) todo.push_back(gate->next);
      }
    }
  }
  return placement;
}

std::vector<Engine::Violation> Engine::violations() const {
  std::vector<Violation> found;
  std::map<std::string, std::map<uint32_t, std::set<const Module*>>> exclusive;
  for (const auto& entry : placement()) {
    const Module& module = *entry.first;
    Workers workers;
    for (const auto& at : entry.second.tasks) {
      workers.insert(at.first);
      for (const std::string& what : module.exclusive(at.first, at.second)) {
        exclusive[what][at.first].insert(&module);
      }
    }
    const uint32_t most = module.module_class().max_workers;
    if (workers.size() > most) {
      found.push_back({module.name(), true,
                       quoted_class(module) + " is reached from " + names(workers) + "; at most " +
                           std::to_string(most) +
                           " may run it: put the tasks that lead there on one worker, or a Queue "
                           "before it"});
    }
    if (module.module_class().ends_tasks && entry.second.upstream.empty()) {
      found.push_back({module.name(), false, "no task leads to " + quoted_class(module)});
    }
  }
  for (const auto& entry : exclusive) {
    if (entry.second.size() < 2) continue;
    Workers workers;
    std::set<const Module*> users;
    for (const auto& at : entry.second) {
      workers.insert(at.first);
      users.insert(at.second.begin(), at.second.end());
    }
    for (const Module* user : users) {
      found.push_back({user->name(), true,
                       quoted_class(*user) + ": " + entry.first + " is used from " +
                           names(workers) +
                           ", and one worker may at a time: give the port a queue for each worker, "
                           "or put a Queue before it"});
    }
  }
  return found;
}

size_t Engine::fatal_violations() {
  tell_placement();  // what a module uses may depend on who runs it
  size_t count = 0;
  for (const Violation& violation : violations()) count += violation.fatal;
  return count;
}

Status Engine::check_placement() {
  tell_placement();
  for (const Violation& violation : violations()) {
    if (violation.fatal) return Status::error(EBUSY, violation.message);
  }
  return {};
}

void Engine::tell_placement() {
  for (const auto& entry : placement()) {
    std::vector<uint32_t> workers;
    workers.reserve(entry.second.tasks.size());
    for (const auto& at : entry.second.tasks) workers.push_back(at.first);
    entry.first->placed(workers);
  }
}

void Engine::link_tasks() {
  for (auto& entry : tcs_) entry.second->pressure.reset();
  for (const auto& entry : placement()) {
    Graph::Upstream upstream;
    for (TrafficClass* leaf : entry.second.upstream) {
      if (!Graph::may_overload(*entry.first)) break;
      if (leaf->pressure == nullptr) leaf->pressure = std::make_shared<std::atomic<int32_t>>(0);
      upstream.push_back(leaf->pressure);
    }
    Graph::set_upstream(*entry.first, std::move(upstream));
  }
}

// Says what wakes the workers, all of which are paused, from sleep.
void Engine::link_bells() {
  std::map<int, std::vector<int>> watched;
  for (const auto& entry : tcs_) {
    const TrafficClass& leaf = *entry.second;
    if (leaf.policy() != Policy::kLeaf) continue;
    const int wid = leaf.root()->wid;
    const auto worker = workers_.find(static_cast<uint64_t>(wid));  // -1: nobody's
    if (leaf.task_index == 0) {
      Graph::set_bell(*leaf.module, worker == workers_.end() ? nullptr : worker->second->bell());
    }
    const int fd = leaf.module->wake_fd(leaf.module->task_args()[leaf.task_index]);
    if (fd >= 0) watched[wid].push_back(fd);
  }
  for (const auto& entry : workers_) {
    entry.second->bell()->watch(watched[static_cast<int>(entry.first)]);
  }
}

Args Engine::scheduling_violations() {
  std::lock_guard<std::mutex> lock(mutex_);
  const Paused paused(*this);
  if (!paused.any()) (void)attach_orphans();
  tell_placement();
  Args::List list;
  for (const Violation& violation : violations()) {
    Args entry;
    entry.set("name", violation.module);
    entry.set("fatal", violation.fatal);
    entry.set("message", violation.message);
    list.push_back(std::move(entry));
  }
  return list;
}

Status Engine::configure_resume_hook(const std::string& name, bool enable) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!enable) {
    resume_hooks_.erase(name);
    return {};
  }
  if (name != kSetupMetadata && name != kSetupTaskGraph) {
    return Status::error(ENOENT, "No such resume hook '" + name + "'; there are " + kSetupMetadata +
                                     " and " + kSetupTaskGraph);
  }
  if (!resume_hooks_.insert(name).second) {
    return Status::error(EEXIST, "Resume hook '" + name + "' is already installed");
  }
  return {};
}

Status Engine::run_resume_hooks() {
  for (const std::string& name : resume_hooks_) {
    if (name == kSetupTaskGraph) {
      link_tasks();
      continue;
    }
    Status status = graph_.assign_metadata(true);
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace e2
