// SPDX-License-Identifier: BSD-3-Clause
// Worker: one pinned thread that runs the tasks of its traffic-class tree.
//
// It stops and starts only between task runs, so whoever paused it may change the graph. When tasks
// find nothing to do it spins, then sleeps in steps of up to 2 ms: an idle daemon costs no core.
// What wakes it before: packets at a port that has a descriptor to wait for (Port::wake_fd), those
// that another worker puts into a queue (Module::wake_task), the time that a task has asked for
// (Context::wake_at), and whoever pauses it. Anything else is found after the step.
// One that polls (polling.cc) runs tasks that found nothing as often as their shares say.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/pool.h"
#include "engine/traffic_class.h"
#include "host/bell.h"
#include "host/module.h"

namespace e2 {

// The lowest stack address that a module on the calling thread may start at.
const void* find_stack_floor();

class Worker {
 public:
  // `core` < 0 leaves the thread unpinned.
  Worker(uint32_t wid, int core, bool polling, PacketPool& pool);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Returns when the worker is between two task runs and will stay there.
  void pause();
  // The first half of `pause`: whoever pauses many asks all of them before it waits for one.
  void request_pause();
  void resume();
  bool running() const { return running_; }
  // As of some moment of late, while running.
  uint32_t cached_packets() const { return cache_->size; }

  uint32_t wid() const { return wid_; }
  int core() const { return core_; }
  const std::shared_ptr<Bell>& bell() const { return bell_; }
  // While paused.
  void set_profile(bool on, const ProfileCost& cost) {
    ctx_.profile = on;
    ctx_.profile_cost = cost;
  }
  TrafficClass* root = nullptr;  // changed while paused only

 private:
  void loop();
  // kPlain: neither polling nor profiling.
  template <bool kPlain>
  void run_once();
  uint64_t ns_of(uint64_t ticks) const;
  uint64_t now_ns() const;  // at ctx_.tsc
  void idle();
  void sleep();

  uint32_t wid_;
  int core_;
  bool polling_;
  PacketPool& pool_;
  std::unique_ptr<PoolCache> cache_;
  Context ctx_;
  std::shared_ptr<Bell> bell_;  // with the modules that ring it
  // Since there was work: whether it looked in vain, since when, whether whoever leaves work rings,
  // and whether to ignore descriptors as one woke it for nothing.
  bool idle_ = false;
  uint64_t idle_since_tsc_ = 0;
  uint64_t asleep_from_tsc_ = 0;  // no sleep before
  bool hung_ = false;
  bool deaf_ = false;
  uint64_t spin_ticks_ = 0;
  uint64_t ns_per_tick_2_32_ = 0;  // in units of 2^-32 ns
  uint64_t start_ns_ = 0;          // both clocks at the last resume
  uint64_t start_tsc_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> stop_requested_{true};
  bool exit_ = false;
  bool parked_ = false;
  std::atomic<bool> running_{false};
  std::thread thread_;
};

}  // namespace e2
