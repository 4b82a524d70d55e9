// SPDX-License-Identifier: BSD-3-Clause
// Traffic classes: the tree from which a worker picks its next task.
//
// | policy        | picks                                                               |
// |---------------|---------------------------------------------------------------------|
// | priority      | the first child that can run, lowest number first                   |
// | weighted_fair | the child with the least usage / share (stride scheduling)          |
// | round_robin   | each child that can run in turn                                     |
// | rate_limit    | its one child, while its token bucket is not empty                  |
// | leaf          | its task                                                            |
//
// Usage is counted as runs, cycles, packets or bits. A child that comes back from being unable to
// run starts level with its siblings: it earns no credit while away. An idle run (no usage) also
// costs a child its turn, so that a queue that is empty can't hold up the others.
// A weighted_fair level costs O(log children): its children wait in two heaps, those that ran by
// pass, those that could not by the time at which they may again. That a child can't run is noticed
// when its turn comes. Other levels cost O(children).
// A leaf is also held back while a queue that it leads to is overloaded (`pressure`).
// What differs on a worker that polls is in polling.cc.
// Source: stride scheduling, Waldspurger & Weihl 1995.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace e2 {

class Module;

enum class Policy : uint8_t { kPriority, kWeightedFair, kRoundRobin, kRateLimit, kLeaf };
enum class Resource : uint8_t { kCount, kCycle, kPacket, kBit };
constexpr size_t kResources = 4;
constexpr uint64_t kLongestBackOffTicks = 1 << 14;
using Usage = std::array<uint64_t, kResources>;

const char* policy_name(Policy policy);
const char* resource_name(Resource resource);
bool parse_policy(const std::string& name, Policy& policy);
bool parse_resource(const std::string& name, Resource& resource);

class TrafficClass {
 public:
  struct Child {
    TrafficClass* tc = nullptr;
    int64_t priority = 0;
    int64_t share = 1;
    double pass = 0;
    uint64_t silent_in = 0;  // polling: the silence in which it was last found idle
  };

  TrafficClass(std::string name, Policy policy) : name_(std::move(name)), policy_(policy) {}

  // The leaf to run at time `now_tsc`, or nullptr when nothing below can run.
  TrafficClass* pick(uint64_t now_tsc);
  // Charges a finished run of this leaf to itself and everything above.
  void account(const Usage& usage, uint64_t now_tsc);

  void add_child(TrafficClass* child, int64_t priority, int64_t share);
  void remove_child(TrafficClass* child);
  // While the worker runs: whatever is charged from now on counts by the new share.
  void set_share(TrafficClass* child, int64_t share);
  // Tokens per second and the most that may pile up; a limit of 0 stops the class.
  void set_limit(uint64_t limit_per_s, uint64_t max_burst, double hz);
  // A leaf that found nothing to do steps aside, each time for longer, up to a few microseconds: so
  // an idle class never holds up one of lower priority.
  void back_off(uint64_t now_tsc);
  void found_work() { back_off_ticks_ = 0; }

  // Instead of these three on a worker that polls: below a weighted_fair class by cycles a leaf
  // that found nothing to do does not step aside before all other leaves of that class have found
  // nothing since the last one that did.
  void account_poll(const Usage& usage, uint64_t now_tsc);
  void account_work(const Usage& usage, uint64_t now_tsc);

  const std::string& name() const { return name_; }
  Policy policy() const { return policy_; }
  Resource resource() const { return resource_; }
  void set_resource(Resource resource) { resource_ = resource; }
  TrafficClass* parent() const { return parent_; }
  const std::vector<Child>& children() const { return children_; }
  const Usage& usage() const { return usage_; }
  uint64_t limit_per_s() const { return limit_per_s_; }
  uint64_t max_burst() const { return max_burst_; }
  bool is_under(const TrafficClass* ancestor) const;
  const TrafficClass* root() const;
  // A leaf: held back by an overloaded queue. Others: a rate limit of 0.
  bool blocked() const;

  // Leaves only.
  Module* module = nullptr;
  size_t task_index = 0;
  std::shared_ptr<std::atomic<int32_t>>
      pressure;  // overloaded queues downstream; null: none can be
  // The worker at whose root this tree hangs; -1 while nowhere.
  int wid = -1;

 private:
  bool leaf_can_run(uint64_t now_tsc) const {
    return now_tsc >= throttled_until_tsc_ && !held_back();
  }
  bool can_run(uint64_t now_tsc) {
    return policy_ == Policy::kLeaf ? leaf_can_run(now_tsc) : inner_can_run(now_tsc);
  }
  bool inner_can_run(uint64_t now_tsc);
  bool held_back() const {
    return pressure != nullptr && pressure->load(std::memory_order_relaxed) > 0;
  }
  // A time before which can_run is surely false, after it was.
  uint64_t wake_tsc() const;
  TrafficClass* pick_weighted(uint64_t now_tsc);
  void settle(uint64_t now_tsc);
  void put_aside_top(uint64_t now_tsc);
  void look_again();
  bool before(uint32_t a, uint32_t b) const;
  void sink(size_t at);
  void insert_ready(uint32_t child);
  void remove_ready_top();
  TrafficClass* pick_round_robin(uint64_t now_tsc);
  void charge_child(const TrafficClass* child, const Usage& usage, uint64_t now_tsc);
  void count(const Usage& usage, uint64_t now_tsc) {
    for (size_t i = 0; i < kResources; ++i) usage_[i] += usage[i];
    if (policy_ == Policy::kRateLimit) spend(usage[static_cast<size_t>(resource_)], now_tsc);
  }
  void spend(uint64_t tokens, uint64_t now_tsc);
  bool note_idle(const TrafficClass* child);
  void end_silence();
  void refill(uint64_t now_tsc);

  std::string name_;
  Policy policy_;
  Resource resource_ = Resource::kCount;
  TrafficClass* parent_ = nullptr;
  std::atomic<double> stride_{0};  // what a unit of usage adds to its pass below parent_
  std::vector<Child> children_;
  size_t next_ = 0;
  // weighted_fair: heaps of indices in children_.
  struct Aside {
    uint64_t wake_tsc;
    uint32_t child;
    bool resting;  // polling: aside for nothing but having been idle in a silence
  };
  std::vector<uint32_t> ready_;  // by pass, then by index
  std::vector<Aside> aside_;     // by wake_tsc
  std::vector<Aside> returning_;
  // Polling: the number of the current silence, and how many children (round_robin: runs) were idle
  // in it.
  uint64_t silence_ = 1;
  size_t silent_ = 0;
  Usage usage_{};

  uint64_t limit_per_s_ = 0;
  uint64_t max_burst_ = 0;
  double tokens_per_tick_ = 0;
  double tokens_ = 0;
  uint64_t refilled_tsc_ = 0;
  uint64_t throttled_until_tsc_ = 0;
  uint64_t back_off_ticks_ = 0;
};

}  // namespace e2
