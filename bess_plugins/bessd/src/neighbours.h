// SPDX-License-Identifier: BSD-3-Clause
// Neighbours: the other modules that a module's arguments name, its Host in bessd.
//
// bessd's own Queue is no module of ours, yet LoadMonitor has to watch it: what stands for it
// answers for its occupancy, and is gone once the queue is.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "host/module.h"

namespace e2 {

class Neighbours final : public Host {
 public:
  Port* find_port(const std::string&) override { return nullptr; }
  Module* find_module(const std::string& name) override;
  // Forgets what no longer is the module that it was. No worker runs that would look at it.
  void refresh();

 private:
  struct Stand {
    const ::Module* real = nullptr;
    ModuleClass module_class;
    std::unique_ptr<Module> module;
  };
  std::map<std::string, Stand> stands_;
};

}  // namespace e2
