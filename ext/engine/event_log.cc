// SPDX-License-Identifier: BSD-3-Clause
#include "engine/event_log.h"

#include <algorithm>
#include <chrono>

#include "engine/engine.h"

namespace e2 {

void EventLog::fetch(const std::vector<Module*>& modules) {
  std::vector<Entry> fetched;
  for (Module* module : modules) {
    EventRing* ring = module->event_ring();
    if (ring == nullptr) continue;
    last_ += ring->take_lost();
    for (Event event; ring->take(event);) {
      fetched.push_back({0, 0, module->name(), module->event_types()[event.type], event});
    }
  }
  if (fetched.empty()) return;
  std::stable_sort(fetched.begin(), fetched.end(), [](const Entry& a, const Entry& b) {
    return a.event.time_ns < b.event.time_ns;
  });
  using std::chrono::duration_cast;
  using std::chrono::nanoseconds;
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  const uint64_t epoch_offset =
      static_cast<uint64_t>(duration_cast<nanoseconds>(since_epoch).count()) - clock_ns();
  for (Entry& entry : fetched) {
    entry.number = ++last_;
    entry.time_ns = entry.event.time_ns + epoch_offset;
    entries_.push_back(std::move(entry));
  }
  while (entries_.size() > kMostEvents) entries_.pop_front();
}

Args EventLog::after(uint64_t number) const {
  Args::List events;
  const auto past = [](uint64_t n, const Entry& entry) { return n < entry.number; };
  for (auto at = std::upper_bound(entries_.begin(), entries_.end(), number, past);
       at != entries_.end(); ++at) {
    Args values{Args::Map{}};
    for (size_t i = 0; i < at->type.values.size(); ++i) {
      values.set(at->type.values[i], at->event.values[i]);
    }
    Args entry;
    entry.set("number", at->number);
    entry.set("time_ns", at->time_ns);
    entry.set("module", at->module);
    entry.set("kind", at->type.kind);
    entry.set("values", std::move(values));
    events.push_back(std::move(entry));
  }
  Args result;
  result.set("last", last_);
  result.set("events", std::move(events));
  return result;
}

void Engine::fetch_events() {
  std::vector<Module*> modules;
  for (const auto& entry : graph_.modules()) modules.push_back(entry.second.get());
  events_.fetch(modules);
}

Args Engine::events(uint64_t after) {
  std::lock_guard<std::mutex> lock(mutex_);
  fetch_events();
  return events_.after(after);
}

}  // namespace e2
