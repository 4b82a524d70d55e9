// SPDX-License-Identifier: BSD-3-Clause
// Metadata offsets by live range.
//
// A value lives from the module that writes it to the last module that reads or updates it. The
// modules on those paths are the value's range; ranges of one attribute that meet at a reader are
// one range. Two ranges that share a module need disjoint bytes; others may share bytes. Ranges are
// placed largest first, each at the lowest aligned offset that is free in all of its modules.
#include <algorithm>
#include <functional>
#include <set>

#include "engine/graph.h"

namespace e2 {
namespace {

using Key = std::pair<std::string, uint32_t>;  // attribute name, size in bytes
using Wires = std::map<const Module*, std::vector<Module*>>;

struct Range {
  Key key;
  std::set<Module*> modules;
  int offset = kNoOffset;
};

const Attribute* find_attribute(const Module& module, const Key& key) {
  for (const Attribute& attr : module.attributes()) {
    if (attr.name == key.first && attr.size_bytes == key.second) return &attr;
  }
  return nullptr;
}

// Modules between `writer` and the readers that its value reaches, both ends included.
std::set<Module*> live_modules(Module* writer, const Key& key, const Wires& next,
                               const Wires& previous) {
  std::set<Module*> reached;
  std::vector<Module*> todo{writer};
  while (!todo.empty()) {
    Module* at = todo.back();
    todo.pop_back();
    const auto it = next.find(at);
    if (it == next.end()) continue;
    for (Module* module : it->second) {
      const Attribute* attr = find_attribute(*module, key);
      if (attr != nullptr && attr->access == Access::kWrite) continue;
      if (reached.insert(module).second) todo.push_back(module);
    }
  }
  std::set<Module*> live{writer};
  for (Module* module : reached) {
    const Attribute* attr = find_attribute(*module, key);
    if (attr != nullptr && live.insert(module).second) todo.push_back(module);
  }
  while (!todo.empty()) {
    Module* at = todo.back();
    todo.pop_back();
    const auto it = previous.find(at);
    if (it == previous.end()) continue;
    for (Module* module : it->second) {
      if (reached.count(module) != 0 && live.insert(module).second) todo.push_back(module);
    }
  }
  return live;
}

bool overlap(const std::set<Module*>& a, const std::set<Module*>& b) {
  return std::any_of(a.begin(), a.end(), [&](Module* module) { return b.count(module) != 0; });
}

void merge_into(std::vector<Range>& ranges, Range range) {
  for (size_t i = 0; i < ranges.size();) {
    if (ranges[i].key == range.key && overlap(ranges[i].modules, range.modules)) {
      range.modules.insert(ranges[i].modules.begin(), ranges[i].modules.end());
      ranges.erase(ranges.begin() + static_cast<std::ptrdiff_t>(i));
      i = 0;  // the larger range may meet an earlier one
    } else {
      ++i;
    }
  }
  ranges.push_back(std::move(range));
}

bool place(Range& range, const std::vector<Range>& placed) {
  const auto size = static_cast<int>(range.key.second);
  int align = 1;
  while (align < size && align < 8) align *= 2;
  for (int offset = 0; offset + size <= static_cast<int>(kMetadataBytes); offset += align) {
    const bool free = std::none_of(placed.begin(), placed.end(), [&](const Range& other) {
      return other.offset < offset + size &&
             offset < other.offset + static_cast<int>(other.key.second) &&
             overlap(other.modules, range.modules);
    });
    if (free) {
      range.offset = offset;
      return true;
    }
  }
  return false;
}

}  // namespace

Status Graph::assign_metadata(bool strict) {
  Wires next;
  Wires previous;
  std::set<const Module*> tasked;
  std::vector<const Module*> todo;
  for (const auto& entry : modules_) {
    Module* module = entry.second.get();
    for (const auto& gate : module->out_gates_) {
      if (gate == nullptr) continue;
      next[module].push_back(gate->next);
      previous[gate->next].push_back(module);
    }
    const bool sends = !module->task_args_.empty() && !module->class_->silent_tasks;
    if (sends && tasked.insert(module).second) todo.push_back(module);
  }
  while (!todo.empty()) {
    const Module* at = todo.back();
    todo.pop_back();
    for (const Module* module : next[at]) {
      if (tasked.insert(module).second) todo.push_back(module);
    }
  }

  std::vector<Range> ranges;
  for (const auto& entry : modules_) {
    Module* module = entry.second.get();
    for (const Attribute& attr : module->attributes_) {
      if (attr.access != Access::kWrite) continue;
      const Key key{attr.name, attr.size_bytes};
      merge_into(ranges, {key, live_modules(module, key, next, previous), kNoOffset});
    }
  }
  for (const auto& entry : modules_) {
    Module* module = entry.second.get();
    for (const Attribute& attr : module->attributes_) {
      const Key key{attr.name, attr.size_bytes};
      const bool written = std::any_of(ranges.begin(), ranges.end(), [&](const Range& range) {
        return range.key == key && range.modules.count(module) != 0;
      });
      if (written || attr.access == Access::kMayRead) continue;
      if (strict && tasked.count(module) != 0) {
        return Status::invalid("module '" + entry.first + "' (" + module->class_->name +
                               ") reads attribute '" + attr.name + "' (" +
                               std::to_string(attr.size_bytes) +
                               " bytes), which no module upstream of it writes");
      }
      merge_into(ranges, {key, {module}, kNoOffset});
    }
  }

  std::stable_sort(ranges.begin(), ranges.end(),
                   [](const Range& a, const Range& b) { return a.key.second > b.key.second; });
  std::vector<Range> placed;
  for (Range& range : ranges) {
    if (!place(range, placed)) {
      return Status::error(ENOSPC, "no room for attribute '" + range.key.first + "': the " +
                                       std::to_string(kMetadataBytes) +
                                       " metadata bytes of a packet are taken");
    }
    placed.push_back(range);
  }
  for (const auto& entry : modules_) {
    Module* module = entry.second.get();
    for (size_t i = 0; i < module->attributes_.size(); ++i) {
      const Key key{module->attributes_[i].name, module->attributes_[i].size_bytes};
      module->attr_offsets_[i] = kNoOffset;  // whoever wrote it may be gone
      for (const Range& range : placed) {
        if (range.key == key && range.modules.count(module) != 0) {
          module->attr_offsets_[i] = range.offset;
        }
      }
    }
  }
  return {};
}

}  // namespace e2
