// SPDX-License-Identifier: BSD-3-Clause
// FlowAging: when the flows of a FlowTable end.
//
// That is `timeout_ms` after its entry was used, or `linger_ms` after it where the entry says that
// its connection has ended. Whoever looks a flow up asks alive(); the others are found by a hand
// that goes round the table about twice within the shorter of both times.
//
// Functions that end flows are given what to do with one, `end(its number)`, which removes it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "host/args.h"
#include "host/status.h"
#include "modules/flow_table.h"

namespace e2 {

class FlowAging {
 public:
  // From the arguments `timeout_ms` and `linger_ms` of that class.
  Status init(const Args& args, const std::string& module_class, uint64_t default_timeout_ms);
  // Makes a table of as many flows as that argument says.
  static Status make_table(const Args& args, const std::string& module_class,
                           const std::string& name, FlowTable& table);

  // The time of a batch, which never goes back.
  uint64_t advance(uint64_t batch_ns) {
    const uint64_t now = std::max<uint64_t>(now_ns_, batch_ns);
    now_ns_ = now;
    return now;
  }
  // The time of the latest packet, or that of the clock where it is later. From any thread.
  uint64_t now_ns() const { return std::max<uint64_t>(now_ns_, clock_ns()); }
  bool alive(const FlowEntry& entry, uint64_t now) const {
    const uint64_t used = entry.used_ns;
    const uint64_t limit = timeout_ns_[(entry.state & FlowEntry::kClosing) != 0];
    return now < used || now - used < limit;
  }

  // For each batch: the hand's next step, where it is time for one.
  template <typename End>
  void sweep_in_time(const FlowTable& table, uint64_t now, End end) {
    if (now < next_sweep_ns_ || table.end() == 0) return;
    const uint64_t period = std::min(timeout_ns_[0], timeout_ns_[1]) / 2;
    const uint64_t step = std::min(period * kSweepStep / table.end(), period / kSweepStep);
    sweep(table, now, now - next_sweep_ns_ < step ? kSweepStep : kSweepLate, end);
    next_sweep_ns_ = now + step;
  }
  // For each new flow: whether there is room for it, perhaps because others are found to have
  // ended.
  template <typename End>
  bool has_room(const FlowTable& table, uint64_t now, End end) {
    if (table.full()) sweep(table, now, kSweepFull, end);
    return !table.full();
  }

 private:
  static constexpr uint32_t kSweepStep = 16;
  static constexpr uint32_t kSweepLate = 64;
  static constexpr uint32_t kSweepFull = 4;

  // Ends what has expired among the next `count` entries.
  template <typename End>
  void sweep(const FlowTable& table, uint64_t now, uint32_t count, End end) {
    const uint32_t behind = table.end();
    for (uint32_t i = 0; i < std::min(count, behind); ++i) {
      if (hand_ >= behind) hand_ = 0;
      const FlowEntry& entry = table[hand_];
      if (entry.state != 0 && !alive(entry, now)) end(hand_);
      ++hand_;
    }
  }

  uint64_t timeout_ns_[2] = {};  // idle, and once a connection has ended
  Field<uint64_t> now_ns_{};
  uint64_t next_sweep_ns_ = 0;
  uint32_t hand_ = 0;
};

}  // namespace e2
