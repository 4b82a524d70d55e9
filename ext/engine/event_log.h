// SPDX-License-Identifier: BSD-3-Clause
// EventLog: the latest events of all modules of an engine, numbered in the order in which they
// happened as far as it was known when they were fetched.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "host/module.h"

namespace e2 {

class EventLog {
 public:
  static constexpr size_t kMostEvents = 4096;

  // Fetches what the modules posted. Numbers are left out for events that a full ring refused.
  void fetch(const std::vector<Module*>& modules);
  // {last, events}: the number of the latest event, and all events past number `after` that are
  // still here.
  Args after(uint64_t number) const;

 private:
  struct Entry {
    uint64_t number = 0;
    uint64_t time_ns = 0;  // since the Unix epoch
    std::string module;
    EventType type;
    Event event;
  };

  std::deque<Entry> entries_;
  uint64_t last_ = 0;
};

}  // namespace e2
