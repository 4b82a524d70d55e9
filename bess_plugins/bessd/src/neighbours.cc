// SPDX-License-Identifier: BSD-3-Clause
#include "neighbours.h"

#include <algorithm>

#include "host/occupancy.h"

namespace e2 {
namespace {

// Stands for a module of bessd's own.
class Foreign : public Module {};

class ForeignQueue final : public Foreign, public Occupancy {
 public:
  explicit ForeignQueue(::Module& queue) : queue_(queue) {}
  uint64_t waiting() const override { return status().count(); }
  uint64_t most_waiting() const override { return std::max<uint64_t>(1, status().size()); }

 private:
  // By the command, which may run beside workers; a sample each 10 ms or so.
  bess::pb::QueueCommandGetStatusResponse status() const {
    google::protobuf::Any arg;
    arg.PackFrom(bess::pb::QueueCommandGetStatusArg());
    bess::pb::QueueCommandGetStatusResponse status;
    queue_.RunCommand("get_status", arg).data().UnpackTo(&status);
    return status;
  }

  ::Module& queue_;
};

::Module* find(const std::string& name) {
  const auto& all = ModuleGraph::GetAllModules();
  const auto it = all.find(name);
  return it == all.end() ? nullptr : it->second;
}

}  // namespace

Module* Neighbours::find_module(const std::string& name) {
  ::Module* const real = find(name);
  if (real == nullptr) return nullptr;
  if (auto* const ours = dynamic_cast<Module*>(real)) return ours;
  Stand& stand = stands_[name];
  stand.real = real;
  const std::string& kind = real->module_builder()->class_name();
  stand.module_class.name = kind.c_str();
  if (kind == "Queue") {
    stand.module = std::make_unique<ForeignQueue>(*real);
  } else {
    stand.module = std::make_unique<Foreign>();
  }
  stand.module->class_ = &stand.module_class;
  return stand.module.get();
}

void Neighbours::refresh() {
  for (auto it = stands_.begin(); it != stands_.end();) {
    it = find(it->first) == it->second.real ? std::next(it) : stands_.erase(it);
  }
}

}  // namespace e2
