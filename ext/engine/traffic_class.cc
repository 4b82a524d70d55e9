// SPDX-License-Identifier: BSD-3-Clause
#include "engine/traffic_class.h"

#include <algorithm>
#include <cmath>

namespace e2 {
namespace {

constexpr const char* kPolicyNames[] = {"priority", "weighted_fair", "round_robin", "rate_limit",
                                        "leaf"};
constexpr const char* kResourceNames[] = {"count", "cycle", "packet", "bit"};
// One share's stride; a power of two keeps passes exact for long.
constexpr double kStrideOne = 1 << 20;
constexpr uint64_t kFirstBackOffTicks = 1 << 9;

template <typename T, size_t N>
bool parse_name(const char* const (&names)[N], const std::string& name, T& value) {
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) {
      value = static_cast<T>(i);
      return true;
    }
  }
  return false;
}

double stride_of(int64_t share) {
  return kStrideOne / static_cast<double>(std::max<int64_t>(share, 1));
}

constexpr auto kLater = [](const auto& a, const auto& b) { return a.wake_tsc > b.wake_tsc; };

}  // namespace

const char* policy_name(Policy policy) { return kPolicyNames[static_cast<size_t>(policy)]; }
const char* resource_name(Resource resource) {
  return kResourceNames[static_cast<size_t>(resource)];
}
bool parse_policy(const std::string& name, Policy& policy) {
  return parse_name(kPolicyNames, name, policy);
}
bool parse_resource(const std::string& name, Resource& resource) {
  return parse_name(kResourceNames, name, resource);
}

void TrafficClass::add_child(TrafficClass* child, int64_t priority, int64_t share) {
  Child entry;
  entry.tc = child;
  entry.priority = priority;
  entry.share = share;
  child->stride_.store(stride_of(share), std::memory_order_relaxed);
  child->parent_ = this;
  const auto at = policy_ != Policy::kPriority
                      ? children_.end()
                      : std::find_if(children_.begin(), children_.end(),
                                     [&](const Child& c) { return c.priority > priority; });
  children_.insert(at, entry);
  if (policy_ == Policy::kWeightedFair) {
    // Aside at first: it joins level with its siblings at the next pick.
    aside_.push_back({0, static_cast<uint32_t>(children_.size() - 1), false});
    ready_.reserve(children_.size());
    aside_.reserve(children_.size());
    returning_.reserve(children_.size());
  }
  look_again();
}

void TrafficClass::remove_child(TrafficClass* child) {
  const auto found = std::find_if(children_.begin(), children_.end(),
                                  [&](const Child& c) { return c.tc == child; });
  if (found == children_.end()) return;
  const auto gone = static_cast<uint32_t>(found - children_.begin());
  children_.erase(found);
  child->parent_ = nullptr;
  next_ = 0;
  // Indices have moved. Those that are ready stay ready, with their passes.
  const auto moved = [gone](uint32_t at) { return at > gone ? at - 1 : at; };
  std::vector<uint32_t> ready;
  for (const uint32_t at : ready_) {
    if (at != gone) ready.push_back(moved(at));
  }
  ready_.clear();
  for (const uint32_t at : ready) insert_ready(at);
  aside_.erase(std::remove_if(aside_.begin(), aside_.end(),
                              [gone](const Aside& entry) { return entry.child == gone; }),
               aside_.end());
  for (Aside& entry : aside_) entry.child = moved(entry.child);
  look_again();
}

void TrafficClass::set_share(TrafficClass* child, int64_t share) {
  for (Child& entry : children_) {
    if (entry.tc == child) entry.share = share;  // which no worker reads
  }
  child->stride_.store(stride_of(share), std::memory_order_relaxed);
}

void TrafficClass::set_limit(uint64_t limit_per_s, uint64_t max_burst, double hz) {
  limit_per_s_ = limit_per_s;
  max_burst_ = max_burst;
  tokens_per_tick_ = static_cast<double>(limit_per_s) / hz;
  tokens_ = std::min(tokens_, static_cast<double>(max_burst));
  throttled_until_tsc_ = 0;
  look_again();
}

// What has changed here may let this class run earlier than those above think.
void TrafficClass::look_again() {
  for (TrafficClass* tc = this; tc != nullptr; tc = tc->parent_) {
    for (Aside& entry : tc->aside_) entry.wake_tsc = 0;  // equal keys: still a heap
    tc->end_silence();
  }
}

bool TrafficClass::is_under(const TrafficClass* ancestor) const {
  for (const TrafficClass* tc = this; tc != nullptr; tc = tc->parent_) {
    if (tc == ancestor) return true;
  }
  return false;
}

const TrafficClass* TrafficClass::root() const {
  const TrafficClass* tc = this;
  while (tc->parent_ != nullptr) tc = tc->parent_;
  return tc;
}

bool TrafficClass::blocked() const {
  return policy_ == Policy::kRateLimit ? limit_per_s_ == 0 : held_back();
}

TrafficClass* TrafficClass::pick(uint64_t now_tsc) {
  switch (policy_) {
    case Policy::kLeaf:
      return leaf_can_run(now_tsc) ? this : nullptr;
    case Policy::kPriority:
      for (Child& child : children_) {
        if (TrafficClass* leaf = child.tc->pick(now_tsc)) return leaf;
      }
      return nullptr;
    case Policy::kRateLimit:
      refill(now_tsc);
      if (now_tsc < throttled_until_tsc_ || limit_per_s_ == 0 || children_.empty()) return nullptr;
      return children_[0].tc->pick(now_tsc);
    case Policy::kWeightedFair:
      return pick_weighted(now_tsc);
    case Policy::kRoundRobin:
      return pick_round_robin(now_tsc);
  }
  return nullptr;
}

bool TrafficClass::inner_can_run(uint64_t now_tsc) {
  if (policy_ == Policy::kWeightedFair) {
    settle(now_tsc);
    return !ready_.empty();
  }
  if (policy_ == Policy::kRateLimit) {
    refill(now_tsc);
    if (now_tsc < throttled_until_tsc_ || limit_per_s_ == 0) return false;
  }
  return std::any_of(children_.begin(), children_.end(),
                     [&](const Child& child) { return child.tc->can_run(now_tsc); });
}

uint64_t TrafficClass::wake_tsc() const {
  if (policy_ == Policy::kLeaf) return held_back() ? 0 : throttled_until_tsc_;
  if (policy_ == Policy::kRateLimit && limit_per_s_ == 0) return UINT64_MAX;
  uint64_t first = UINT64_MAX;
  if (policy_ == Policy::kWeightedFair) {
    if (!ready_.empty()) return 0;
    if (!aside_.empty()) first = aside_.front().wake_tsc;
  } else {
    for (const Child& child : children_) first = std::min(first, child.tc->wake_tsc());
  }
  return policy_ == Policy::kRateLimit ? std::max(first, throttled_until_tsc_) : first;
}

bool TrafficClass::before(uint32_t a, uint32_t b) const {
  const double pass_a = children_[a].pass;
  const double pass_b = children_[b].pass;
  return pass_a != pass_b ? pass_a < pass_b : a < b;
}

// Restores the heap below `at`, whose pass has grown.
void TrafficClass::sink(size_t at) {
  const size_t size = ready_.size();
  const uint32_t child = ready_[at];
  for (size_t next = 2 * at + 1; next < size; next = 2 * at + 1) {
    if (next + 1 < size && before(ready_[next + 1], ready_[next])) ++next;
    if (!before(ready_[next], child)) break;
    ready_[at] = ready_[next];
    at = next;
  }
  ready_[at] = child;
}

void TrafficClass::insert_ready(uint32_t child) {
  size_t at = ready_.size();
  ready_.push_back(child);
  for (; at > 0 && before(child, ready_[(at - 1) / 2]); at = (at - 1) / 2) {
    ready_[at] = ready_[(at - 1) / 2];
  }
  ready_[at] = child;
}

void TrafficClass::remove_ready_top() {
  ready_[0] = ready_.back();
  ready_.pop_back();
  if (!ready_.empty()) sink(0);
}

void TrafficClass::put_aside_top(uint64_t now_tsc) {
  const uint32_t child = ready_[0];
  remove_ready_top();
  const uint64_t wake_tsc = children_[child].tc->wake_tsc();
  const bool resting = children_[child].silent_in == silence_ && wake_tsc > now_tsc;
  aside_.push_back({std::max(now_tsc, wake_tsc), child, resting});
  std::push_heap(aside_.begin(), aside_.end(), kLater);
}

// Puts the first of the ready children in front that can run now, and has those that can run again
// join it. One that could not run is noticed only at the front: before that it makes no difference.
void TrafficClass::settle(uint64_t now_tsc) {
  while (!aside_.empty() && aside_.front().wake_tsc <= now_tsc) {
    returning_.push_back(aside_.front());
    std::pop_heap(aside_.begin(), aside_.end(), kLater);
    aside_.pop_back();
  }
  while (!ready_.empty() && !children_[ready_[0]].tc->can_run(now_tsc)) put_aside_top(now_tsc);
  if (returning_.empty()) return;
  const double level = ready_.empty() ? -HUGE_VAL : children_[ready_[0]].pass;
  for (const Aside& back : returning_) {
    Child& entry = children_[back.child];
    if (entry.tc->can_run(now_tsc)) {
      if (!back.resting) entry.pass = std::max(entry.pass, level);
      insert_ready(back.child);
    } else {
      aside_.push_back({std::max(now_tsc, entry.tc->wake_tsc()), back.child, false});
      std::push_heap(aside_.begin(), aside_.end(), kLater);
    }
  }
  returning_.clear();
}

TrafficClass* TrafficClass::pick_weighted(uint64_t now_tsc) {
  const bool settled = (aside_.empty() || aside_.front().wake_tsc > now_tsc) && !ready_.empty() &&
                       children_[ready_[0]].tc->can_run(now_tsc);
  if (!settled) settle(now_tsc);
  if (ready_.empty()) return nullptr;
  TrafficClass* front = children_[ready_[0]].tc;
  return front->policy_ == Policy::kLeaf ? front : front->pick(now_tsc);
}

TrafficClass* TrafficClass::pick_round_robin(uint64_t now_tsc) {
  for (size_t tried = 0; tried < children_.size(); ++tried) {
    if (next_ >= children_.size()) next_ = 0;
    TrafficClass* leaf = children_[next_++].tc->pick(now_tsc);
    if (leaf != nullptr) return leaf;
  }
  return nullptr;
}

// Charges a run to a child: the one that pick_weighted chose, which is in front.
void TrafficClass::charge_child(const TrafficClass* child, const Usage& usage, uint64_t now_tsc) {
  if (ready_.empty() || children_[ready_[0]].tc != child) return;
  const uint32_t front = ready_[0];
  Child& charged = children_[front];
  const uint64_t used = usage[static_cast<size_t>(resource_)];
  if (used != 0) {
    charged.pass += child->stride_.load(std::memory_order_relaxed) * static_cast<double>(used);
    sink(0);
    return;
  }
  // Idle: behind the next sibling that can run, but with no debt.
  if (ready_.size() == 1) return;
  remove_ready_top();
  while (!ready_.empty() && !children_[ready_[0]].tc->can_run(now_tsc)) put_aside_top(now_tsc);
  if (!ready_.empty() && charged.pass <= children_[ready_[0]].pass) {
    charged.pass = std::nextafter(children_[ready_[0]].pass, HUGE_VAL);
  }
  insert_ready(front);
}

void TrafficClass::spend(uint64_t tokens, uint64_t now_tsc) {
  tokens_ -= static_cast<double>(tokens);
  if (tokens_ < 0) {
    throttled_until_tsc_ = now_tsc + static_cast<uint64_t>(-tokens_ / tokens_per_tick_);
  }
}

void TrafficClass::account(const Usage& usage, uint64_t now_tsc) {
  count(usage, now_tsc);
  if (parent_ == nullptr) return;
  if (parent_->policy_ == Policy::kWeightedFair) parent_->charge_child(this, usage, now_tsc);
  parent_->account(usage, now_tsc);
}

void TrafficClass::refill(uint64_t now_tsc) {
  if (refilled_tsc_ != 0 && now_tsc > refilled_tsc_) {
    tokens_ += static_cast<double>(now_tsc - refilled_tsc_) * tokens_per_tick_;
    tokens_ = std::min(tokens_, static_cast<double>(max_burst_));
  }
  refilled_tsc_ = now_tsc;
}

void TrafficClass::back_off(uint64_t now_tsc) {
  back_off_ticks_ = back_off_ticks_ == 0 ? kFirstBackOffTicks
                                         : std::min(2 * back_off_ticks_, kLongestBackOffTicks);
  throttled_until_tsc_ = now_tsc + back_off_ticks_;
}

}  // namespace e2
