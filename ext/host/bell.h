// SPDX-License-Identifier: BSD-3-Clause
// Bell: wakes a worker that sleeps because none of its tasks found anything to do.
//
// | to do this                                       | call that                              |
// |--------------------------------------------------|----------------------------------------|
// | have whoever leaves work wake this worker        | hang(), then look for work once more   |
// | sleep until then, or until a descriptor is ready | wait(...)                              |
// | wake the worker after leaving work for its task  | ring(); from a module: wake_task(ctx)  |
//
// Whatever was left before a ring that came too early is seen by the look that follows hang(): both
// exchange one flag. A ring costs that exchange; only the first one after hang() is a system call.
#pragma once

#include <poll.h>

#include <atomic>
#include <cstdint>
#include <vector>

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

class Bell {
 public:
  // Of the worker `wid`. Where the system has no descriptor left, sleep ends by its time alone.
  explicit Bell(uint32_t wid);
  ~Bell();
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  uint32_t wid() const { return wid_; }
  // From any thread.
  void ring() {
    if (hung_.exchange(false, std::memory_order_acq_rel)) strike();
  }

  // By the worker only, or while it is paused.
  void hang() { hung_.exchange(true, std::memory_order_acq_rel); }
  // Descriptors that become readable when there may be work.
  void watch(const std::vector<int>& fds);
  enum class Woken : uint8_t { kByTime, kByRing, kByWatched };
  // Sleeps for up to that time, with an eye on what it watches or on the bell alone.
  Woken wait(uint64_t ns, bool watched);

 private:
  void strike();

  const uint32_t wid_;
  std::atomic<bool> hung_{false};
  std::vector<pollfd> polled_;  // the bell's own first
};

}  // namespace e2
#pragma GCC visibility pop
