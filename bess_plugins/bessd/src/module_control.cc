// SPDX-License-Identifier: BSD-3-Clause
// bessd's half of Module, the control side: registration, arguments, commands, placement.
#include <glog/logging.h>

#include <algorithm>
#include <list>
#include <set>

#include "descriptors.h"
#include "host/module.h"
#include "messages.h"
#include "neighbours.h"

namespace e2 {
namespace {

using google::protobuf::Any;
using AttributeMode = bess::metadata::Attribute::AccessMode;

// Which classes this plugin brought: a name that bessd has already stays bessd's.
std::list<ModuleClass>& classes() {
  static std::list<ModuleClass> all;
  return all;
}

CommandResponse failure(const Status& status) {
  return CommandFailure(status.code, "%s", status.message.c_str());
}

// What an allocation that fails, or whatever else is thrown, comes to.
template <typename F>
CommandResponse guarded(F f) {
  try {
    return f();
  } catch (const std::exception& error) {
    return failure(Status::error(ENOMEM, error.what()));
  }
}

AttributeMode mode_of(Access access) {
  switch (access) {
    case Access::kRead:
      return AttributeMode::kRead;
    case Access::kWrite:
      return AttributeMode::kWrite;
    default:
      return AttributeMode::kUpdate;
  }
}

// Whether a worker that runs may be in this module. bessd knows only where clients have it check
// the constraints first, and counts drops anew whenever it looks.
bool is_running(const ::Module& module, std::set<const ::Module*>& seen) {
  if (!seen.insert(&module).second) return false;
  for (const Task* task : module.tasks()) {
    const int wid = task->GetTC()->WorkerId();
    if (wid >= 0 && is_worker_running(wid)) return true;
  }
  for (const bess::IGate* gate : module.igates()) {
    if (gate == nullptr) continue;
    for (const bess::OGate* source : gate->ogates_upstream()) {
      if (is_running(*source->module(), seen)) return true;
    }
  }
  return false;
}

// Commands of all modules of the plugin.
Status get_drops(Module& module, const Args&, Args& response) {
  Args::Map drops;
  const std::vector<std::string>& reasons = module.drop_reasons();
  for (uint32_t i = 0; i < reasons.size(); ++i) drops[reasons[i]] = module.drops(i);
  response.set("drops", std::move(drops));
  return {};
}

Status get_events(Module& module, const Args&, Args& response) {
  Args::List events;
  Event event;
  EventRing* const ring = module.event_ring();
  while (ring != nullptr && ring->take(event)) {
    const EventType& type = module.event_types()[event.type];
    Args::Map values;
    for (size_t i = 0; i < type.values.size(); ++i) values[type.values[i]] = event.values[i];
    Args told;
    told.set("time_ns", event.time_ns);
    told.set("kind", type.kind);
    told.set("values", std::move(values));
    events.push_back(std::move(told));
  }
  response.set("events", std::move(events));
  response.set("lost", ring == nullptr ? uint64_t{0} : ring->take_lost());
  return {};
}

::Commands commands_of(const ModuleClass& module_class) {
  std::vector<Command> all = module_class.commands;
  all.push_back({"get_drops", "EmptyArg", "BessdDropsResponse", true, get_drops});
  all.push_back({"get_events", "EmptyArg", "BessdEventsResponse", true, get_events});
  ::Commands commands;
  for (const Command& command : all) {
    commands.push_back({command.name, command.arg_type,
                        [command](::Module* module, const Any& arg) {
                          return static_cast<Module*>(module)->run_command(command, arg);
                        },
                        command.thread_safe ? ::Command::THREAD_SAFE : ::Command::THREAD_UNSAFE});
  }
  return commands;
}

// Batches of another size, say, would go unnoticed until packets are lost.
bool is_right_daemon() {
  static const bool right = std::string(google::VersionString()) == kDaemonVersion;
  if (!right) {
    LOG(ERROR) << "this plugin was built for bessd " << kDaemonVersion << ", not for this one ("
               << google::VersionString() << "): it registers no modules";
  }
  return right;
}

}  // namespace

ModuleRegistration::ModuleRegistration(const ModuleClass& module_class) : name_(nullptr) {
  if (!is_right_daemon()) return;
  if (ModuleBuilder::all_module_builders().count(module_class.name) != 0) return;
  name_ = module_class.name;
  const ModuleClass& kept = classes().emplace_back(module_class);
  ModuleBuilder::RegisterModuleClass([&kept]() -> ::Module* { return kept.make().release(); },
                                     kept.name, kept.name_template, kept.help, kept.max_in_gates,
                                     kept.max_out_gates, commands_of(kept),
                                     [&kept](::Module* module, const Any& arg) {
                                       return static_cast<Module*>(module)->set_up(kept, arg);
                                     });
}

ModuleRegistration::~ModuleRegistration() {
  if (name_ != nullptr) ModuleBuilder::DeregisterModuleClass(name_);
}

Module::Module() : drop_reasons_{"no gate", "loop"}, counts_(new WorkerCount[kMaxWorkers]) {}
Module::~Module() = default;

size_t Module::add_attr(std::string name, uint32_t size_bytes, Access access) {
  attributes_.push_back({std::move(name), size_bytes, access});
  return attributes_.size() - 1;
}

uint32_t Module::add_drop_reason(std::string reason) {
  drop_reasons_.push_back(std::move(reason));
  return static_cast<uint32_t>(drop_reasons_.size() - 1);
}

uint32_t Module::add_event(std::string kind, std::vector<std::string> values) {
  if (events_ == nullptr) events_ = std::make_unique<EventRing>();
  event_types_.push_back({std::move(kind), std::move(values)});
  return static_cast<uint32_t>(event_types_.size() - 1);
}

CommandResponse Module::set_up(const ModuleClass& module_class, const Any& arg) {
  return guarded([&] {
    class_ = &module_class;
    neighbours_ = std::make_unique<Neighbours>();
    Args args;
    Status status = read_message(arg, module_class.arg_type, args);
    if (status.ok()) status = init(*neighbours_, args);
    if (status.ok()) status = declare();
    return status.ok() ? CommandSuccess() : failure(status);
  });
}

Status Module::declare() {
  for (const Attribute& attribute : attributes_) {
    const int id = AddMetadataAttr(attribute.name, attribute.size_bytes, mode_of(attribute.access));
    if (id < 0) {
      return Status::error(-id, "bessd refuses attribute '" + attribute.name + "' of " +
                                    std::to_string(attribute.size_bytes) +
                                    " bytes: it takes 16 per module, of 1 to 32 bytes, and one "
                                    "size per name in all modules");
    }
  }
  for (const uint64_t arg : task_args_) {
    if (RegisterTask(reinterpret_cast<void*>(arg)) == INVALID_TASK_ID) {
      return Status::error(ENOMEM, "bessd takes no more tasks");
    }
  }
  // To bessd, packets start anew at a module with tasks; not so where the tasks send nothing.
  is_task_ = !task_args_.empty() && !class_->silent_tasks;
  propagate_workers_ = !class_->ends_tasks;
  max_allowed_workers_ = static_cast<int>(class_->max_workers);
  return {};
}

CommandResponse Module::run_command(const e2::Command& command, const Any& arg) {
  return guarded([&] {
    std::set<const ::Module*> seen;
    if (!command.thread_safe && is_running(*this, seen)) {
      return failure(Status::error(EBUSY, "a worker runs '" + name() + "', and command '" +
                                              command.name + "' is for when none does; pause"));
    }
    neighbours_->refresh();
    Args args;
    Args response;
    CommandResponse answer;
    Status status = read_message(arg, command.arg_type, args);
    if (status.ok()) status = command.run(*this, args, response);
    Any data;
    if (status.ok()) status = write_message(response, command.response_type, data);
    if (!data.type_url().empty()) *answer.mutable_data() = data;
    return status.ok() ? answer : failure(status);
  });
}

int Module::OnEvent(bess::Event event) {
  if (event != bess::Event::PreResume) return -ENOTSUP;
  neighbours_->refresh();
  std::vector<uint32_t> wids;
  for (uint32_t wid = 0; wid < kMaxWorkers; ++wid) {
    if (active_workers()[wid]) wids.push_back(wid);
  }
  placed(wids);
  return 0;
}

// As bessd does it, but for modules whose own tasks send nothing, or that part workers.
void Module::AddActiveWorker(int wid, const Task* task) {
  if (HaveVisitedWorker(task)) return;
  active_workers_[static_cast<size_t>(wid)] = true;
  visited_tasks_.push_back(task);
  const bool own = std::find(tasks().begin(), tasks().end(), task) != tasks().end();
  if (own ? class_->silent_tasks : class_->ends_tasks) return;
  for (const bess::OGate* gate : ogates()) {
    if (gate == nullptr) continue;
    if (class_->splits_workers && !leads_to(static_cast<uint32_t>(wid), gate->gate_idx())) continue;
    gate->next()->AddActiveWorker(wid, task);
  }
}

}  // namespace e2
