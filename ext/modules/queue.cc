// SPDX-License-Identifier: BSD-3-Clause
// Queue: keeps packets until its own task forwards them: the border between two tasks.
//
// With `backpressure`, once the queue is more than 90 % full, or has no room for a whole batch, the
// tasks that lead here do not run until it is less than 15 % full. Batches on their way still
// arrive.
//
// Family: distribution
// Gates: in 1, out 1. One task.
// Arguments: QueueArg
// Commands:
//   set_size            changes how many packets it holds; workers pause meanwhile
//   set_burst           packets per run of the task
//   get_status          fill level and totals
//   get_runtime_config  size, prefetch and backpressure
//   set_runtime_config  changes them; size 0 stays as it is
// Metadata: none.
// Drop reasons:
//   "queue full"  it holds as many packets as it may
// Method: any number of workers may enqueue: each reserves its slots with one compare-and-swap and
// publishes them in order of reservation. One task dequeues.
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>
#include <atomic>
#include <memory>

#include "host/module.h"
#include "host/occupancy.h"

namespace e2 {
namespace {

constexpr uint64_t kDefaultPackets = 1024;
constexpr uint64_t kMostPackets = 1 << 20;
constexpr uint64_t kHighPercent = 90;
constexpr uint64_t kLowPercent = 15;

class Queue final : public Module, public Occupancy {
 public:
  Status init(Host&, const Args& args) override {
    add_task(0);
    prefetch_ = args["prefetch"].as_bool();
    may_overload_ = args["backpressure"].as_bool();
    const uint64_t size = args["size"].as_uint();
    return resize(size == 0 ? kDefaultPackets : size);
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    uint64_t head = reserved_.load(std::memory_order_relaxed);
    uint32_t count;
    for (;;) {
      const uint64_t room = size_ - (head - taken_.load(std::memory_order_acquire));
      count = batch.size < room ? batch.size : static_cast<uint32_t>(room);
      if (count == 0) break;
      if (alone_) {
        reserved_.store(head + count, std::memory_order_relaxed);
        break;
      }
      if (reserved_.compare_exchange_weak(head, head + count, std::memory_order_relaxed)) break;
    }
    if (count != 0) {
      const uint64_t at = head & mask_;
      const auto first = static_cast<uint32_t>(count < size_ - at ? count : size_ - at);
      copy_packets(&slots_[at], batch.packets, first);
      copy_packets(&slots_[0], batch.packets + first, count - first);
      while (published_.load(std::memory_order_relaxed) != head) {
        // An earlier producer is between reserving and publishing: a few stores away.
      }
      published_.store(head + count, std::memory_order_release);
      wake_task(ctx);
      if (may_overload_ && waiting() > high_) set_overloaded(true);
    }
    if (count == batch.size) return;
    dropped_.fetch_add(batch.size - count, std::memory_order_relaxed);
    Batch rest;
    rest.size = batch.size - count;
    copy_packets(rest.packets, batch.packets + count, rest.size);
    drop(ctx, rest, full_);
  }

  TaskResult run_task(Context& ctx, uint64_t) override {
    const uint64_t tail = taken_.load(std::memory_order_relaxed);
    const uint64_t ready = published_.load(std::memory_order_acquire) - tail;
    const uint32_t burst = burst_.load(std::memory_order_relaxed);
    const uint32_t count = ready < burst ? static_cast<uint32_t>(ready) : burst;
    if (may_overload_ && ready - count < low_) set_overloaded(false);
    if (count == 0) return {true, 0, 0};
    Batch batch;
    const uint64_t at = tail & mask_;
    const auto first = static_cast<uint32_t>(count < size_ - at ? count : size_ - at);
    copy_packets(batch.packets, &slots_[at], first);
    copy_packets(batch.packets + first, &slots_[0], count - first);
    batch.size = count;
    taken_.store(tail + count, std::memory_order_release);
    if (prefetch_) {
      for (const Packet* packet : batch) __builtin_prefetch(packet->data());
    }
    uint64_t bytes = 0;
#pragma GCC unroll 8
    for (uint32_t i = 0; i < count; ++i) bytes += batch[i]->len();
    emit(ctx, batch);
    return {false, count, (bytes + uint64_t{count} * 24) * 8};
  }

  void placed(const std::vector<uint32_t>& workers) override { alone_ = workers.size() == 1; }

  void release(Context& ctx) override {
    for (uint64_t i = taken_; i != published_; ++i) ctx.free(&slots_[i & mask_], 1);
    taken_ = published_.load();
  }

  Status set_size(const Args& args, Args&) { return resize(args["size"].as_uint()); }

  Status set_burst(const Args& args, Args&) {
    const uint64_t burst = args["burst"].as_uint();
    if (burst == 0 || burst > kMaxBatch) return Status::invalid("'burst' must be within 1..32");
    burst_ = static_cast<uint32_t>(burst);
    return {};
  }

  Status get_status(const Args&, Args& response) {
    const uint64_t taken = taken_;
    const uint64_t published = published_;
    response.set("count", published - taken);
    response.set("size", size_);
    response.set("enqueued", published);
    response.set("dequeued", taken);
    response.set("dropped", dropped_.load());
    return {};
  }

  Status get_runtime_config(const Args&, Args& response) {
    response.set("size", size_);
    response.set("prefetch", prefetch_);
    response.set("backpressure", may_overload_);
    return {};
  }

  Status set_runtime_config(const Args& args, Args&) {
    const uint64_t size = args["size"].as_uint();
    Status status = size == 0 || size == size_ ? Status{} : resize(size);
    if (!status.ok()) return status;
    prefetch_ = args["prefetch"].as_bool();
    may_overload_ = args["backpressure"].as_bool();
    if (!may_overload_) set_overloaded(false);
    return {};
  }

  uint64_t waiting() const override {
    const uint64_t taken = taken_.load(std::memory_order_relaxed);
    const uint64_t published = published_.load(std::memory_order_relaxed);
    return published > taken ? published - taken : 0;
  }
  uint64_t most_waiting() const override { return size_; }

  std::string description() const override {
    return std::to_string(published_ - taken_) + "/" + std::to_string(size_);
  }

 private:
  Status resize(uint64_t size) {
    if (size < 4 || size > kMostPackets || (size & (size - 1)) != 0) {
      return Status::invalid("'size' must be a power of two within 4..1048576");
    }
    const uint64_t held = published_ - taken_;
    if (held > size) {
      return Status::error(
          EBUSY, "the queue holds " + std::to_string(held) + " packets, more than the new size");
    }
    std::unique_ptr<Packet*[]> slots(new Packet*[size]);
    for (uint64_t i = taken_; i != published_; ++i) slots[i & (size - 1)] = slots_[i & mask_];
    slots_ = std::move(slots);
    size_ = size;
    mask_ = size - 1;
    const uint64_t without_batch = size > kMaxBatch ? size - kMaxBatch : 0;
    high_ = std::min(size * kHighPercent / 100, without_batch);
    low_ = std::max<uint64_t>(1, size * kLowPercent / 100);
    return {};
  }

  bool alone_ = false;  // one worker does all that is done here: no other can come in between
  std::unique_ptr<Packet*[]> slots_;
  uint64_t size_ = 0;
  uint64_t mask_ = 0;
  uint64_t high_ = 0;
  uint64_t low_ = 0;
  bool prefetch_ = false;
  std::atomic<uint32_t> burst_{kMaxBatch};
  std::atomic<uint64_t> dropped_{0};
  uint32_t full_ = add_drop_reason("queue full");
  alignas(kCacheLineBytes) std::atomic<uint64_t> reserved_{0};
  alignas(kCacheLineBytes) std::atomic<uint64_t> published_{0};
  alignas(kCacheLineBytes) std::atomic<uint64_t> taken_{0};
};

const ModuleClass kClass = {
    "Queue",
    "queue",
    "keeps packets until its task forwards them",
    "QueueArg",
    1,
    1,
    {{"set_size", "QueueCommandSetSizeArg", "EmptyArg", false, command(&Queue::set_size)},
     {"set_burst", "QueueCommandSetBurstArg", "EmptyArg", true, command(&Queue::set_burst)},
     {"get_status", "QueueCommandGetStatusArg", "QueueCommandGetStatusResponse", true,
      command(&Queue::get_status)},
     {"get_runtime_config", "EmptyArg", "QueueArg", true, command(&Queue::get_runtime_config)},
     {"set_runtime_config", "QueueArg", "EmptyArg", false, command(&Queue::set_runtime_config)}},
    make_module<Queue>,
    kAnyWorkers,
    true};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
