// SPDX-License-Identifier: BSD-3-Clause
// EventRing: what a module has to tell controllers, until its host fetches it.
//
// Any thread may post, without locks and without waiting; one thread at a time takes. A full ring
// refuses what is new and counts it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "host/packet.h"

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

constexpr uint32_t kMaxEventValues = 5;

// A kind of event, and the names of its values in their order.
struct EventType {
  std::string kind;
  std::vector<std::string> values;
};

struct Event {
  uint64_t time_ns = 0;  // on the clock of clock_ns()
  uint32_t type = 0;     // index of the module's EventType
  uint64_t values[kMaxEventValues] = {};
};

class EventRing {
 public:
  static constexpr uint32_t kSlots = 256;

  EventRing() {
    for (uint32_t i = 0; i < kSlots; ++i) slots_[i].turn.store(i, std::memory_order_relaxed);
  }

  // Values past kMaxEventValues are left out, those that are missing are 0.
  void post(uint64_t time_ns, uint32_t type, std::initializer_list<uint64_t> values) {
    uint32_t at = head_.load(std::memory_order_relaxed);
    Slot* slot;
    for (;;) {
      slot = &slots_[at % kSlots];
      const uint32_t turn = slot->turn.load(std::memory_order_acquire);
      if (turn == at) {
        if (head_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) break;
      } else if (static_cast<int32_t>(turn - at) < 0) {  // not taken since the last time round
        lost_.fetch_add(1, std::memory_order_relaxed);
        return;
      } else {
        at = head_.load(std::memory_order_relaxed);
      }
    }
    Event& event = slot->event;
    event = {time_ns, type, {}};
    std::copy_n(values.begin(), std::min<size_t>(values.size(), kMaxEventValues), event.values);
    slot->turn.store(at + 1, std::memory_order_release);
  }

  bool take(Event& event) {
    Slot& slot = slots_[tail_ % kSlots];
    if (slot.turn.load(std::memory_order_acquire) != tail_ + 1) return false;
    event = slot.event;
    slot.turn.store(tail_ + kSlots, std::memory_order_release);
    ++tail_;
    return true;
  }

  // How many were refused since the last call.
  uint64_t take_lost() { return lost_.exchange(0, std::memory_order_relaxed); }

 private:
  struct alignas(kCacheLineBytes) Slot {
    std::atomic<uint32_t> turn;  // n: to be filled as the nth event; n + 1: filled
    Event event;
  };
  static_assert(sizeof(Slot) == kCacheLineBytes, "one line each");

  Slot slots_[kSlots];
  std::atomic<uint32_t> head_{0};
  std::atomic<uint64_t> lost_{0};
  alignas(kCacheLineBytes) uint32_t tail_ = 0;
};

}  // namespace e2
#pragma GCC visibility pop
