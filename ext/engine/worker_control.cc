// SPDX-License-Identifier: BSD-3-Clause
// The workers of an Engine: starting, pausing, resuming and removing them.
#include <sched.h>

#include "engine/engine.h"

namespace e2 {
namespace {

constexpr const char* kPollingScheduler = "polling";
// bessd's name for a scheduler whose idle tasks rest, as they do here unless a worker polls.
constexpr const char* kRestingScheduler = "experimental";

}  // namespace

Engine::Paused::Paused(Engine& engine) : engine_(engine) {
  for (auto& entry : engine.workers_) {
    if (!entry.second->running()) continue;
    entry.second->request_pause();
    paused_.push_back(entry.second.get());
  }
  for (Worker* worker : paused_) worker->pause();
}

Engine::Paused::~Paused() {
  if (paused_.empty()) return;
  engine_.tell_placement();
  if (engine_.resume_hooks_.count(kSetupTaskGraph) != 0) engine_.link_tasks();
  engine_.link_bells();
  for (Worker* worker : paused_) worker->resume();
}

bool Engine::any_running() const {
  for (const auto& entry : workers_) {
    if (entry.second->running()) return true;
  }
  return false;
}

Status Engine::start_worker(uint64_t wid, int64_t core, bool polling) {
  if (wid >= kMaxWorkers) {
    return Status::invalid("'wid' must be between 0 and " + std::to_string(kMaxWorkers - 1));
  }
  if (workers_.count(wid) != 0) {
    return Status::error(EEXIST, "worker:" + std::to_string(wid) + " is already active");
  }
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof(allowed), &allowed);
  if (core >= 0 && (core >= CPU_SETSIZE || !CPU_ISSET(static_cast<size_t>(core), &allowed))) {
    return Status::invalid("core " + std::to_string(core) +
                           " is not one that this process may use");
  }
  workers_[wid] =
      std::make_unique<Worker>(static_cast<uint32_t>(wid), static_cast<int>(core), polling, pool_);
  workers_[wid]->set_profile(profile_, profile_cost_);
  return {};
}

Status Engine::add_worker(uint64_t wid, int64_t core, const std::string& scheduler) {
  std::lock_guard<std::mutex> lock(mutex_);
  const bool polling = scheduler == kPollingScheduler;
  if (!polling && !scheduler.empty() && scheduler != kRestingScheduler) {
    return Status::invalid("Invalid scheduler '" + scheduler + "': one of '', '" +
                           kRestingScheduler + "' (the same), '" + kPollingScheduler + "'");
  }
  return start_worker(wid, core, polling);
}

Status Engine::destroy_worker(uint64_t wid) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = workers_.find(wid);
  if (it == workers_.end()) {
    return Status::error(ENOENT, "worker:" + std::to_string(wid) + " is not active");
  }
  it->second->pause();
  for (auto& entry : tcs_) {
    if (entry.second->wid == static_cast<int>(wid)) {
      return Status::error(
          EBUSY, "worker:" + std::to_string(wid) + " still runs class '" + entry.first + "'");
    }
  }
  workers_.erase(it);
  return {};
}

Args Engine::workers() {
  std::lock_guard<std::mutex> lock(mutex_);
  Args::List list;
  for (const auto& entry : workers_) {
    uint64_t classes = 0;
    for (const auto& tc : tcs_) {
      for (const TrafficClass* at = tc.second.get(); at != nullptr; at = at->parent()) {
        classes += at->parent() == nullptr && at->wid == static_cast<int>(entry.first);
      }
    }
    Args worker;
    worker.set("wid", entry.first);
    worker.set("core", entry.second->core());
    worker.set("running", entry.second->running());
    worker.set("num_tcs", classes);
    uint64_t silent_drops = 0;
    for (const auto& module : graph_.modules()) {
      silent_drops += module.second->drops_by(entry.second->wid(), kReasonNoGate);
    }
    worker.set("silent_drops", silent_drops);
    list.push_back(std::move(worker));
  }
  return list;
}

Status Engine::pause(int64_t wid) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (wid >= 0 && workers_.count(static_cast<uint64_t>(wid)) == 0) {
    return Status::error(ENOENT, "worker:" + std::to_string(wid) + " is not active");
  }
  std::vector<Worker*> chosen;
  for (auto& entry : workers_) {
    if ((wid < 0 || entry.first == static_cast<uint64_t>(wid)) && entry.second->running()) {
      entry.second->request_pause();
      chosen.push_back(entry.second.get());
    }
  }
  for (Worker* worker : chosen) worker->pause();
  return {};
}

Status Engine::resume(int64_t wid) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (wid >= 0 && workers_.count(static_cast<uint64_t>(wid)) == 0) {
    return Status::error(ENOENT, "worker:" + std::to_string(wid) + " is not active");
  }
  {
    const Paused paused(*this);
    Status status = attach_orphans();
    if (status.ok()) status = check_placement();
    if (status.ok()) status = run_resume_hooks();
    if (!status.ok()) return status;
    link_bells();
  }
  for (auto& entry : workers_) {
    if ((wid < 0 || entry.first == static_cast<uint64_t>(wid)) && !entry.second->running()) {
      entry.second->resume();
    }
  }
  return {};
}

Status Engine::reset_workers() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& entry : workers_) {
    entry.second->pause();
    entry.second->root = nullptr;
  }
  for (auto& entry : tcs_) detach(entry.second.get());
  workers_.clear();
  return {};
}

}  // namespace e2
