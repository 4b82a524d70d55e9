// SPDX-License-Identifier: BSD-3-Clause
// The traffic classes of an Engine: creating, placing, changing and removing them.
//
// Names that start with '!' are the engine's own: `!leaf_MODULE:TASK` for a module's task and
// `!default_rr_WID` for the round-robin root that a worker gets when several classes are put
// directly on it.
#include "engine/clock.h"
#include "engine/engine.h"

namespace e2 {
namespace {

std::string default_root_name(uint64_t wid) { return "!default_rr_" + std::to_string(wid); }

// The share that a child of a weighted_fair class is to have.
Status read_share(const Args& where, int64_t& share) {
  if (!where.has("share")) return Status::invalid("Child of a weighted_fair TC needs a 'share'");
  share = where["share"].as_int();
  if (share < 1 || share > 1 << 20) {
    return Status::invalid("'share' must be between 1 and 1048576");
  }
  return {};
}

int64_t entry_of(const Args& map, const char* key) { return map[key].as_int(0); }

}  // namespace

TrafficClass* Engine::find_tc(const std::string& name) {
  const auto it = tcs_.find(name);
  return it == tcs_.end() ? nullptr : it->second.get();
}

TrafficClass* Engine::leaf_of(const std::string& module, uint64_t task) {
  return find_tc("!leaf_" + module + ":" + std::to_string(task));
}

void Engine::detach(TrafficClass* tc) {
  if (TrafficClass* parent = tc->parent()) {
    parent->remove_child(tc);
    if (parent->children().empty() && parent->name()[0] == '!') {
      detach(parent);
      tcs_.erase(parent->name());
    }
    return;
  }
  if (tc->wid < 0) return;
  const auto it = workers_.find(static_cast<uint64_t>(tc->wid));
  if (it != workers_.end() && it->second->root == tc) it->second->root = nullptr;
  tc->wid = -1;
}

void Engine::remove_leaves(const Module* module) {
  for (size_t i = 0; i < module->task_args().size(); ++i) {
    TrafficClass* leaf = leaf_of(module->name(), i);
    if (leaf == nullptr) continue;
    detach(leaf);
    tcs_.erase(leaf->name());
  }
}

Status Engine::attach_to_worker(TrafficClass* tc, int64_t wid) {
  if (wid < 0 || static_cast<uint64_t>(wid) >= kMaxWorkers) {
    return Status::invalid("'wid' must be between 0 and " + std::to_string(kMaxWorkers - 1));
  }
  const auto it = workers_.find(static_cast<uint64_t>(wid));
  if (it == workers_.end()) {
    return Status::error(ENOENT, "worker:" + std::to_string(wid) + " does not exist");
  }
  Worker& worker = *it->second;
  if (worker.root == nullptr) {
    worker.root = tc;
    tc->wid = static_cast<int>(wid);
    return {};
  }
  const std::string root_name = default_root_name(static_cast<uint64_t>(wid));
  if (worker.root->name() != root_name) {
    TrafficClass* first = worker.root;
    auto root = std::make_unique<TrafficClass>(root_name, Policy::kRoundRobin);
    root->wid = static_cast<int>(wid);
    first->wid = -1;
    root->add_child(first, 0, 1);
    worker.root = root.get();
    tcs_[root_name] = std::move(root);
  }
  worker.root->add_child(tc, 0, 1);
  return {};
}

// Puts a class where AddTc or UpdateTcParent says: under a parent, or on a worker.
Status Engine::place_tc(TrafficClass* tc, const Args& where) {
  const std::string& parent_name = where["parent"].as_string();
  if (parent_name.empty()) {
    if (where.has("priority") || where.has("share")) {
      return Status::invalid("'priority' and 'share' need a parent with such a policy");
    }
    int64_t wid = where["wid"].as_int(-1);
    if (workers_.empty() && wid <= 0) {  // nobody has to ask for the first one
      Status status = start_worker(0, 0);
      if (!status.ok()) return status;
    }
    if (wid < 0) wid = static_cast<int64_t>(workers_.begin()->first);
    return attach_to_worker(tc, wid);
  }
  TrafficClass* parent = find_tc(parent_name);
  if (parent == nullptr) return Status::error(ENOENT, "Parent TC '" + parent_name + "' not found");
  if (parent->is_under(tc)) {
    return Status::invalid("TC '" + tc->name() + "' can't be put under itself");
  }
  const bool has_priority = where.has("priority");
  const bool has_share = where.has("share");
  switch (parent->policy()) {
    case Policy::kPriority: {
      if (!has_priority) return Status::invalid("Child of a priority TC needs a 'priority'");
      const int64_t priority = where["priority"].as_int();
      if (priority < 0 || priority >= 0xffffffffLL) {
        return Status::invalid("'priority' must be between 0 and 4294967294");
      }
      for (const auto& child : parent->children()) {
        if (child.priority == priority) {
          return Status::error(EEXIST, "TC '" + child.tc->name() + "' under '" + parent_name +
                                           "' has priority " + std::to_string(priority) +
                                           " already; put a round_robin TC there for both");
        }
      }
      parent->add_child(tc, priority, 1);
      return {};
    }
    case Policy::kWeightedFair: {
      int64_t share = 1;
      Status status = read_share(where, share);
      if (status.ok()) parent->add_child(tc, 0, share);
      return status;
    }
    case Policy::kRateLimit:
      if (!parent->children().empty()) {
        return Status::error(EEXIST, "rate_limit TC '" + parent_name + "' has a child already");
      }
      [[fallthrough]];
    case Policy::kRoundRobin:
      if (has_priority || has_share) {
        return Status::invalid("a child of a " + std::string(policy_name(parent->policy())) +
                               " TC takes neither 'priority' nor 'share'");
      }
      parent->add_child(tc, 0, 1);
      return {};
    case Policy::kLeaf:
      break;
  }
  return Status::invalid("TC '" + parent_name + "' is a leaf and can't have children");
}

Status Engine::set_tc_rates(TrafficClass* tc, const Args& args, bool creating) {
  const std::string& resource_text = args["resource"].as_string();
  Resource resource = tc->resource();
  if (tc->policy() != Policy::kWeightedFair && tc->policy() != Policy::kRateLimit) return {};
  if ((creating || !resource_text.empty()) && !parse_resource(resource_text, resource)) {
    return Status::invalid("Invalid resource '" + resource_text +
                           "': one of count, cycle, packet, bit");
  }
  if (tc->policy() == Policy::kRateLimit) {
    const char* key = resource_name(resource);
    if (entry_of(args["limit"], key) < 0 || entry_of(args["max_burst"], key) < 0) {
      return Status::invalid("'limit' and 'max_burst' must not be negative");
    }
    if (creating || args["limit"].has(key) || args["max_burst"].has(key)) {
      const uint64_t limit = args["limit"].has(key) ? args["limit"][key].as_uint()
                                                    : (creating ? 0 : tc->limit_per_s());
      const uint64_t burst = args["max_burst"].has(key) ? args["max_burst"][key].as_uint()
                                                        : (creating ? 0 : tc->max_burst());
      tc->set_limit(limit, burst, tsc_hz());
    }
  }
  tc->set_resource(resource);
  return {};
}

Status Engine::add_tc(const Args& args) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::string& name = args["name"].as_string();
  if (name.empty()) return Status::invalid("Missing 'name' field");
  if (name[0] == '!') return Status::invalid("TC names starting with '!' are reserved");
  if (find_tc(name) != nullptr) return Status::error(EEXIST, "Name '" + name + "' already exists");
  Policy policy;
  if (!parse_policy(args["policy"].as_string(), policy)) {
    return Status::invalid("Invalid traffic class policy '" + args["policy"].as_string() +
                           "': one of priority, weighted_fair, round_robin, rate_limit");
  }
  if (policy == Policy::kLeaf) {
    return Status::invalid("leaf TCs come with modules; use UpdateTcParent to move one");
  }
  auto tc = std::make_unique<TrafficClass>(name, policy);
  Status status = set_tc_rates(tc.get(), args, true);
  if (!status.ok()) return status;
  const Paused paused(*this);
  status = place_tc(tc.get(), args);
  if (status.ok()) tcs_[name] = std::move(tc);
  return status;
}

Status Engine::update_tc_params(const Args& args) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::string& name = args["name"].as_string();
  TrafficClass* tc = find_tc(name);
  if (tc == nullptr) return Status::error(ENOENT, "Name '" + name + "' doesn't exist");
  const Paused paused(*this);
  return set_tc_rates(tc, args, false);
}

Status Engine::update_tc_parent(const Args& args) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::string& module = args["leaf_module_name"].as_string();
  const std::string name =
      module.empty()
          ? args["name"].as_string()
          : "!leaf_" + module + ":" + std::to_string(args["leaf_module_taskid"].as_uint());
  TrafficClass* tc = find_tc(name);
  if (tc == nullptr) {
    if (module.empty()) return Status::error(ENOENT, "Name '" + name + "' doesn't exist");
    if (graph_.find(module) == nullptr) {
      return Status::error(ENOENT, "No module '" + module + "' found");
    }
    return Status::error(ENOENT, "Module '" + module + "' has no task " +
                                     std::to_string(args["leaf_module_taskid"].as_uint()));
  }
  TrafficClass* old_parent = tc->parent();
  if (old_parent != nullptr && old_parent->policy() == Policy::kWeightedFair &&
      old_parent->name() == args["parent"].as_string()) {
    int64_t share = 1;
    Status status = read_share(args, share);
    if (status.ok()) old_parent->set_share(tc, share);
    return status;  // the place stays, and nobody has to wait
  }
  const Paused paused(*this);
  // Remember the place, so that a refused move changes nothing.
  const std::string old_parent_name = old_parent == nullptr ? "" : old_parent->name();
  const int old_wid = old_parent == nullptr ? tc->wid : old_parent->wid;
  int64_t old_priority = 0;
  int64_t old_share = 1;
  if (old_parent != nullptr) {
    for (const auto& child : old_parent->children()) {
      if (child.tc != tc) continue;
      old_priority = child.priority;
      old_share = child.share;
    }
  }
  detach(tc);
  Status status = place_tc(tc, args);
  if (status.ok()) {
    if (paused.any()) status = check_placement();
    if (status.ok()) return status;
    detach(tc);
  }
  if (TrafficClass* parent = find_tc(old_parent_name)) {
    parent->add_child(tc, old_priority, old_share);
  } else if (old_wid >= 0) {
    (void)attach_to_worker(tc, old_wid);
  }
  return status;
}

Status Engine::attach_orphans() {
  for (auto& entry : tcs_) {
    TrafficClass* tc = entry.second.get();
    if (tc->policy() != Policy::kLeaf || tc->parent() != nullptr || tc->wid >= 0) continue;
    if (workers_.empty()) {
      Status status = start_worker(0, -1);
      if (!status.ok()) return status;
    }
    // Workers take turns; one where the task would break a constraint is passed over, if it can be.
    auto it = workers_.begin();
    std::advance(it, next_orphan_worker_++ % workers_.size());
    const size_t broken = fatal_violations();
    for (size_t left = workers_.size(); left > 0; --left) {
      Status status = attach_to_worker(tc, static_cast<int64_t>(it->first));
      if (!status.ok()) return status;
      if (left == 1 || fatal_violations() <= broken) break;
      detach(tc);
      if (++it == workers_.end()) it = workers_.begin();
    }
  }
  return {};
}

Args Engine::describe_tc(const TrafficClass& tc) const {
  Args args;
  args.set("name", tc.name());
  args.set("policy", policy_name(tc.policy()));
  args.set("blocked", tc.blocked());
  args.set("wid", tc.root()->wid);
  args.set("parent", tc.parent() == nullptr ? std::string() : tc.parent()->name());
  if (tc.policy() == Policy::kWeightedFair || tc.policy() == Policy::kRateLimit) {
    args.set("resource", resource_name(tc.resource()));
  }
  Args limit{Args::Map{}};
  Args burst{Args::Map{}};
  if (tc.policy() == Policy::kRateLimit) {
    limit.set(resource_name(tc.resource()), tc.limit_per_s());
    burst.set(resource_name(tc.resource()), tc.max_burst());
  }
  args.set("limit", std::move(limit));
  args.set("max_burst", std::move(burst));
  if (tc.policy() == Policy::kLeaf) {
    args.set("leaf_module_name", tc.module->name());
    args.set("leaf_module_taskid", static_cast<uint64_t>(tc.task_index));
  }
  if (tc.parent() != nullptr) {
    for (const auto& child : tc.parent()->children()) {
      if (child.tc != &tc) continue;
      if (tc.parent()->policy() == Policy::kPriority) args.set("priority", child.priority);
      if (tc.parent()->policy() == Policy::kWeightedFair) args.set("share", child.share);
    }
  }
  return args;
}

Args Engine::tcs() {
  std::lock_guard<std::mutex> lock(mutex_);
  Args::List list;
  for (const auto& entry : tcs_) list.push_back(describe_tc(*entry.second));
  return list;
}

Status Engine::tc_stats(const std::string& name, Args& stats) {
  std::lock_guard<std::mutex> lock(mutex_);
  const TrafficClass* tc = find_tc(name);
  if (tc == nullptr) return Status::error(ENOENT, "No TC '" + name + "' found");
  const Usage& usage = tc->usage();
  stats.set("timestamp", static_cast<double>(monotonic_ns()) / 1e9);
  stats.set("count", usage[0]);
  stats.set("cycles", usage[1]);
  stats.set("packets", usage[2]);
  stats.set("bits", usage[3]);
  return {};
}

Status Engine::reset_tcs() {
  std::lock_guard<std::mutex> lock(mutex_);
  const Paused paused(*this);
  for (auto& worker : workers_) worker.second->root = nullptr;
  // Leaves stay with their modules, as orphans; everything else goes.
  std::map<std::string, TcPtr> leaves;
  for (auto& entry : tcs_) {
    if (entry.second->policy() != Policy::kLeaf) continue;
    TcPtr leaf = std::make_unique<TrafficClass>(entry.first, Policy::kLeaf);
    leaf->module = entry.second->module;
    leaf->task_index = entry.second->task_index;
    leaves[entry.first] = std::move(leaf);
  }
  tcs_ = std::move(leaves);
  return {};
}

}  // namespace e2
