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
constexpr uint64_t kLongestBackOffTicks = 1 << 14;

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
  entry.stride = kStrideOne / static_cast<double>(std::max<int64_t>(share, 1));
  entry.idle = true;  // joins level with its siblings at the first pick
  child->parent_ = this;
  const auto at = policy_ != Policy::kPriority
                      ? children_.end()
                      : std::find_if(children_.begin(), children_.end(),
                                     [&](const Child& c) { return c.priority > priority; });
  children_.insert(at, entry);
}

void TrafficClass::remove_child(TrafficClass* child) {
  children_.erase(std::remove_if(children_.begin(), children_.end(),
                                 [&](const Child& c) { return c.tc == child; }),
                  children_.end());
  child->parent_ = nullptr;
  next_ = 0;
}

void TrafficClass::set_share(TrafficClass* child, int64_t share) {
  for (Child& entry : children_) {
    if (entry.tc != child) continue;
    entry.share = share;
    entry.stride = kStrideOne / static_cast<double>(std::max<int64_t>(share, 1));
  }
}

void TrafficClass::set_limit(uint64_t limit_per_s, uint64_t max_burst, double hz) {
  limit_per_s_ = limit_per_s;
  max_burst_ = max_burst;
  tokens_per_tick_ = static_cast<double>(limit_per_s) / hz;
  tokens_ = std::min(tokens_, static_cast<double>(max_burst));
  throttled_until_tsc_ = 0;
}

bool TrafficClass::is_under(const TrafficClass* ancestor) const {
  for (const TrafficClass* tc = this; tc != nullptr; tc = tc->parent_) {
    if (tc == ancestor) return true;
  }
  return false;
}

TrafficClass* TrafficClass::pick(uint64_t now_tsc) {
  switch (policy_) {
    case Policy::kLeaf:
      return now_tsc < throttled_until_tsc_ ? nullptr : this;
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

bool TrafficClass::can_run(uint64_t now_tsc) {
  if (policy_ == Policy::kLeaf) return now_tsc >= throttled_until_tsc_;
  if (policy_ == Policy::kRateLimit) {
    refill(now_tsc);
    if (now_tsc < throttled_until_tsc_ || limit_per_s_ == 0) return false;
  }
  return std::any_of(children_.begin(), children_.end(),
                     [&](const Child& child) { return child.tc->can_run(now_tsc); });
}

TrafficClass* TrafficClass::pick_weighted(uint64_t now_tsc) {
  double level = HUGE_VAL;  // the least pass of those that ran before and still can
  bool returning = false;
  for (Child& child : children_) {
    const bool was_idle = child.idle;
    child.idle = !child.tc->can_run(now_tsc);
    child.returns = was_idle && !child.idle;
    returning |= child.returns;
    if (!child.idle && !child.returns) level = std::min(level, child.pass);
  }
  Child* best = nullptr;
  for (Child& child : children_) {
    if (child.idle) continue;
    if (returning && child.returns && level != HUGE_VAL) child.pass = std::max(child.pass, level);
    if (best == nullptr || child.pass < best->pass) best = &child;
  }
  return best == nullptr ? nullptr : best->tc->pick(now_tsc);
}

TrafficClass* TrafficClass::pick_round_robin(uint64_t now_tsc) {
  for (size_t tried = 0; tried < children_.size(); ++tried) {
    if (next_ >= children_.size()) next_ = 0;
    TrafficClass* leaf = children_[next_++].tc->pick(now_tsc);
    if (leaf != nullptr) return leaf;
  }
  return nullptr;
}

void TrafficClass::charge_child(const TrafficClass* child, const Usage& usage) {
  double others = HUGE_VAL;
  Child* charged = nullptr;
  for (Child& entry : children_) {
    if (entry.tc == child) {
      charged = &entry;
    } else if (!entry.idle) {
      others = std::min(others, entry.pass);
    }
  }
  const uint64_t used = usage[static_cast<size_t>(resource_)];
  charged->pass += charged->stride * static_cast<double>(used);
  // Idle: behind the next sibling, but with no debt.
  if (used == 0 && others != HUGE_VAL && charged->pass <= others) {
    charged->pass = std::nextafter(others, HUGE_VAL);
  }
}

void TrafficClass::account(const Usage& usage, uint64_t now_tsc) {
  for (size_t i = 0; i < kResources; ++i) usage_[i] += usage[i];
  if (policy_ == Policy::kRateLimit) {
    tokens_ -= static_cast<double>(usage[static_cast<size_t>(resource_)]);
    if (tokens_ < 0) {
      throttled_until_tsc_ = now_tsc + static_cast<uint64_t>(-tokens_ / tokens_per_tick_);
    }
  }
  if (parent_ == nullptr) return;
  if (parent_->policy_ == Policy::kWeightedFair) parent_->charge_child(this, usage);
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
