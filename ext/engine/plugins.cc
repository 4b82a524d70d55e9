// SPDX-License-Identifier: BSD-3-Clause
// Plugins: shared objects with further modules and ports, written against ext/host.
#include <dlfcn.h>
#include <sys/stat.h>

#include <algorithm>

#include "engine/engine.h"
#include "engine/registry.h"

namespace e2 {
namespace {

std::vector<std::string> known_classes() {
  std::vector<std::string> names;
  for (const ModuleClass* c : module_classes()) names.emplace_back(c->name);
  for (const PortClass* c : port_classes()) names.emplace_back(c->name);
  return names;
}

// Python loads extensions for themselves alone; plugins need what ours has of ext/host.
void show_symbols() {
  static const char kHere = 0;
  Dl_info info{};
  if (dladdr(&kHere, &info) != 0) dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
}

}  // namespace

Status Engine::import_plugin(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (plugins_.count(path) != 0) {
    return Status::error(EEXIST, "plugin '" + path + "' is already loaded");
  }
  struct stat info{};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    // Opening a pipe would wait for somebody to write to it, with every other call behind.
    return Status::invalid("can't load plugin '" + path + "': it is no regular file");
  }
  const std::vector<std::string> before = known_classes();
  show_symbols();
  (void)take_refusal();
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr)
    return Status::error(EINVAL, std::string("can't load plugin: ") + dlerror());
  const std::string refused = take_refusal();
  if (!refused.empty()) {
    dlclose(handle);
    return Status::invalid("can't load plugin '" + path + "': " + refused);
  }
  Plugin plugin;
  plugin.handle = handle;
  for (const std::string& name : known_classes()) {
    if (std::find(before.begin(), before.end(), name) == before.end()) {
      plugin.classes.push_back(name);
    }
  }
  if (plugin.classes.empty()) {
    dlclose(handle);
    return Status::invalid("'" + path + "' registers no new module or port class");
  }
  plugins_[path] = std::move(plugin);
  return {};
}

Status Engine::unload_plugin(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = plugins_.find(path);
  if (it == plugins_.end()) return Status::error(ENOENT, "plugin '" + path + "' is not loaded");
  const auto provides = [&](const char* name) {
    const auto& classes = it->second.classes;
    return std::find(classes.begin(), classes.end(), name) != classes.end();
  };
  for (const auto& entry : graph_.modules()) {
    if (provides(entry.second->module_class().name)) {
      return Status::error(
          EBUSY, "module '" + entry.first + "' is of plugin '" + path + "'; destroy it first");
    }
  }
  for (const auto& entry : ports_) {
    if (provides(entry.second->port_class->name)) {
      return Status::error(
          EBUSY, "port '" + entry.first + "' is of plugin '" + path + "'; destroy it first");
    }
  }
  dlclose(it->second.handle);
  plugins_.erase(it);
  return {};
}

Args Engine::plugins() {
  std::lock_guard<std::mutex> lock(mutex_);
  Args::List paths;
  for (const auto& entry : plugins_) paths.emplace_back(entry.first);
  return paths;
}

}  // namespace e2
