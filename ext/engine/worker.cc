// SPDX-License-Identifier: BSD-3-Clause
#include "engine/worker.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>
#include <csignal>

#include "engine/clock.h"

namespace e2 {
namespace {

// A few times what sleeping and being woken take.
constexpr double kSpinSeconds = 50e-6;
constexpr uint64_t kFirstSleepNs = 10'000;
constexpr uint64_t kLongestSleepNs = 2'000'000;
constexpr uint64_t kSleepPart = 8;  // a sleep lasts that part of the time without work before it
// A worker is up that much before a task's time: as late as the system wakes it now and then.
constexpr uint64_t kEarlyNs = 50'000;

// Stack that a chain of modules may use; a graph that needs more has a loop.
constexpr size_t kMostStackBytes = 1u << 20;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

const void* find_stack_floor() {
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return nullptr;
  void* lowest = nullptr;
  size_t bytes = 0;
  pthread_attr_getstack(&attributes, &lowest, &bytes);
  pthread_attr_destroy(&attributes);
  return static_cast<uint8_t*>(lowest) + bytes - std::min(kMostStackBytes, bytes / 2);
}

Worker::Worker(uint32_t wid, int core, bool polling, PacketPool& pool)
    : wid_(wid),
      core_(core),
      polling_(polling),
      pool_(pool),
      cache_(new PoolCache),
      bell_(std::make_shared<Bell>(wid)) {
  ctx_.wid = wid;
  ctx_.pool = &pool;
  ctx_.pool_cache = cache_.get();
  spin_ticks_ = static_cast<uint64_t>(kSpinSeconds * tsc_hz());
  ns_per_tick_2_32_ = static_cast<uint64_t>(1e9 / tsc_hz() * 0x1p32);
  ctx_.random.state ^= (wid + 1) * 0x2545f4914f6cdd1dULL;
  thread_ = std::thread(&Worker::loop, this);
  if (core >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    pthread_setaffinity_np(thread_.native_handle(), sizeof(set), &set);
  }
}

Worker::~Worker() {
  pause();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    exit_ = true;
  }
  changed_.notify_all();
  thread_.join();
  pool_.flush(*cache_);
}

void Worker::request_pause() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_requested_ = true;
  }
  bell_->ring();
}

void Worker::pause() {
  request_pause();
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return parked_; });
  running_ = false;
}

void Worker::resume() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_requested_ = false;
    running_ = true;
  }
  changed_.notify_all();
}

void Worker::loop() {
  ctx_.stack_floor = find_stack_floor();
  // A pipe that nobody reads any more is an error of the write, not the end of the process.
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
  // Sleep ends when it should, not up to 50 us later.
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      while (stop_requested_ && !exit_) {
        parked_ = true;
        changed_.notify_all();
        changed_.wait(lock);
      }
      if (exit_) return;
      parked_ = false;
      idle_ = false;
      start_ns_ = monotonic_ns();
      start_tsc_ = ctx_.tsc = read_tsc();
    }
    if (polling_ || ctx_.profile) {
      while (!stop_requested_.load(std::memory_order_relaxed)) run_once<false>();
    } else {
      while (!stop_requested_.load(std::memory_order_relaxed)) run_once<true>();
    }
  }
}

inline uint64_t Worker::ns_of(uint64_t ticks) const {
  __extension__ using Product = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Product>(ticks) * ns_per_tick_2_32_ >> 32);
}

inline uint64_t Worker::now_ns() const { return start_ns_ + ns_of(ctx_.tsc - start_tsc_); }

template <bool kPlain>
void Worker::run_once() {
  // One clock read a run: the end of the last one is the start of this one.
  TrafficClass* leaf = root == nullptr ? nullptr : root->pick(ctx_.tsc);
  if (leaf == nullptr) {
    idle();
    return;
  }
  ctx_.now_ns = now_ns();
  ctx_.child_cycles = 0;
  const TaskResult result =
      leaf->module->run_task(ctx_, leaf->module->task_args()[leaf->task_index]);
  const uint64_t end_tsc = read_tsc();
  const Usage usage = {1, end_tsc - ctx_.tsc, result.packets, result.bits};
  if (!kPlain && ctx_.profile) leaf->module->note_run(ctx_, usage[1], result.packets);
  ctx_.tsc = end_tsc;
  const bool idle = result.packets == 0 && result.block;
  if (!idle) {
    idle_ = false;
    ctx_.wake_ns = UINT64_MAX;
  }
  if (!kPlain && polling_) {
    if (idle) {
      leaf->account_poll(usage, end_tsc);
    } else {
      leaf->account_work(usage, end_tsc);
    }
    return;
  }
  leaf->account(usage, end_tsc);
  if (idle) {
    leaf->back_off(end_tsc);
  } else {
    leaf->found_work();
  }
}

void Worker::idle() {
  if (!idle_) {
    idle_ = true;
    idle_since_tsc_ = ctx_.tsc;
    hung_ = deaf_ = false;
  }
  if (!hung_ && ctx_.tsc - idle_since_tsc_ >= spin_ticks_) {
    // From now on whoever leaves work rings. Each leaf looks once more: none backs off for longer.
    bell_->hang();
    hung_ = true;
    asleep_from_tsc_ = ctx_.tsc + kLongestBackOffTicks;
  }
  if (hung_ && ctx_.tsc >= asleep_from_tsc_) {
    sleep();
  } else {
    relax();
  }
  ctx_.tsc = read_tsc();  // afterwards: no task has spent that time
}

void Worker::sleep() {
  const uint64_t idle_ns = ns_of(ctx_.tsc - idle_since_tsc_);
  uint64_t ns = std::min(kLongestSleepNs, kFirstSleepNs + idle_ns / kSleepPart);
  if (ctx_.wake_ns != UINT64_MAX) {
    const uint64_t up_ns = now_ns() + kEarlyNs + kFirstSleepNs;
    if (ctx_.wake_ns < up_ns) {
      // Too soon to sleep. The task that asked is run meanwhile; one that can't be asks no longer.
      if (ctx_.wake_ns + kEarlyNs < now_ns()) ctx_.wake_ns = UINT64_MAX;
      relax();
      return;
    }
    ns = std::min(ns, ctx_.wake_ns - up_ns + kFirstSleepNs);
    ctx_.wake_ns = UINT64_MAX;
  }
  const Bell::Woken woken = bell_->wait(ns, !deaf_);
  if (woken == Bell::Woken::kByTime) {
    bell_->hang();  // each leaf looks before the next sleep: this one was longer than any backs off
    return;
  }
  hung_ = false;
  deaf_ = deaf_ || woken == Bell::Woken::kByWatched;
}

}  // namespace e2
