// SPDX-License-Identifier: BSD-3-Clause
// Live: a table that commands change while workers look things up in it, and nobody stops.
//
// There are two copies. Workers read one; a change goes to the other, which then becomes the one to
// read; when no worker can still be reading the first, the change goes to that one, too. A batch
// thus meets the table from before a change or from after it, never something between.
//
//   Live<Rules> live_;
//
// | to do this                          | write that                                           |
// |-------------------------------------|------------------------------------------------------|
// | look things up in process, run_task | auto rules = live_.read(ctx);                        |
// |                                     | ... rules->find(...) ...                             |
// |                                     | rules.release();  // then emit                       |
// | change it in a command              | live_.change([&](Rules& rules) { rules.add(...); }); |
// | change it unless that fails         | return live_.try_change([&](Rules& rules) {...});    |
// | look at it in a command             | const auto rules = live_.look();                     |
//
// Readers never wait. A change waits for the workers that are between `read` and `release`, which
// is why `release` comes before what follows in the graph gets the packets. A module that a worker
// enters again meanwhile reads the same copy. What points into the table is good until `release`.
//
// A reader says in a place of its own which copy it reads and checks that it still is the one to
// read. The order of these two is the writer's affair: it makes all threads pass a memory barrier
// (membarrier(2)) between publishing a copy and looking at the places. Without that system call
// readers pass one each.
#pragma once

#include <atomic>
#include <mutex>

#include "host/module.h"

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

// Whether fence_threads works here. Never under ThreadSanitizer, which wouldn't see it.
bool can_fence_threads();
// Every thread of the process passes a full memory barrier before this returns.
void fence_threads();
// Waits a little; longer the more often it was called in a row.
void wait_for_reader(uint32_t round);

template <typename Table>
class Live {
  struct alignas(kCacheLineBytes) Place {
    std::atomic<const Table*> reads{nullptr};
  };

 public:
  // What one worker reads.
  class Reader {
   public:
    Reader(const Table* table, Place* place) : table_(table), place_(place) {}
    ~Reader() { release(); }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;
    const Table* operator->() const { return table_; }
    const Table& operator*() const { return *table_; }
    void release() {
      if (place_ != nullptr) place_->reads.store(nullptr, std::memory_order_release);
      place_ = nullptr;
    }

   private:
    const Table* table_;
    Place* place_;
  };

  // What a command looks at; no change happens meanwhile.
  class Look {
   public:
    Look(std::mutex& mutex, const std::atomic<Table*>& current)
        : lock_(mutex), table_(current.load(std::memory_order_relaxed)) {}
    const Table* operator->() const { return table_; }
    const Table& operator*() const { return *table_; }

   private:
    std::lock_guard<std::mutex> lock_;
    const Table* table_;
  };

  // Tests choose whether readers pass the barriers.
  explicit Live(bool readers_fence = !can_fence_threads()) : readers_fence_(readers_fence) {
    if (!readers_fence) sure_ = copies_;
  }
  Live(const Live&) = delete;
  Live& operator=(const Live&) = delete;

  Reader read(const Context& ctx) {
    Place& place = places_[ctx.wid];
    const Table* const table = current_.load(std::memory_order_acquire);
    if (__builtin_expect(place.reads.load(std::memory_order_relaxed) != nullptr, 0)) {
      // This worker reads already, and whoever began will release.
      return {place.reads.load(std::memory_order_relaxed), &places_[kMaxWorkers]};
    }
    place.reads.store(table, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (__builtin_expect(sure_.load(std::memory_order_acquire) == table, 1)) return {table, &place};
    return {read_slowly(place), &place};
  }

  // `change(Table&)` runs once for each copy and has to do the same to both.
  template <typename Change>
  void change(Change change) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Table& next = spare();
    change(next);
    change(publish(next));
  }

  // Where `change` returns an error, it must leave its table as it was; nothing changes then.
  template <typename Change>
  Status try_change(Change change) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Table& next = spare();
    Status status = change(next);
    if (!status.ok()) return status;
    return change(publish(next));
  }

  Look look() const { return {mutex_, current_}; }

 private:
  [[gnu::noinline]] const Table* read_slowly(Place& place) {
    const Table* table = nullptr;
    const Table* seen = current_.load(std::memory_order_seq_cst);
    while (table != seen) {
      table = seen;
      place.reads.store(table, std::memory_order_seq_cst);
      seen = current_.load(std::memory_order_seq_cst);
    }
    return table;
  }

  Table& spare() {
    return current_.load(std::memory_order_relaxed) == &copies_[0] ? copies_[1] : copies_[0];
  }

  // Makes `next` the copy to read; returns the other one once nobody reads it any more.
  Table& publish(Table& next) {
    current_.store(&next, std::memory_order_seq_cst);
    if (!readers_fence_) {
      sure_.store(&next, std::memory_order_seq_cst);
      fence_threads();
    }
    Table& old = spare();
    for (uint32_t wid = 0; wid < kMaxWorkers; ++wid) {
      const std::atomic<const Table*>& reads = places_[wid].reads;
      for (uint32_t round = 0; reads.load(std::memory_order_seq_cst) == &old; ++round) {
        wait_for_reader(round);
      }
    }
    return old;
  }

  const bool readers_fence_;
  std::atomic<Table*> current_{copies_};
  std::atomic<Table*> sure_{nullptr};  // current_, where a reader needs no barrier to trust it
  Table copies_[2];
  mutable std::mutex mutex_;
  Place places_[kMaxWorkers + 1];  // the last one is for readers that needn't say anything
};

}  // namespace e2
#pragma GCC visibility pop
