// SPDX-License-Identifier: BSD-3-Clause
// What LoadMonitor makes of its samples: an average that forgets, and a decision that doesn't
// flutter. Time is whatever the caller says.
#pragma once

#include <cmath>
#include <cstdint>

namespace e2 {

// Exponentially weighted moving average of a value that held for spans of any length. It starts at
// 0; after a step of the value, 63 % of the way is done in one time constant.
class Ewma {
 public:
  void set_time_constant(uint64_t time_constant_ns) {
    time_constant_ns_ = static_cast<double>(time_constant_ns);
  }
  void add(double value, uint64_t span_ns) {
    value_ -= (value - value_) * std::expm1(-static_cast<double>(span_ns) / time_constant_ns_);
  }
  double value() const { return value_; }

 private:
  double time_constant_ns_ = 1;
  double value_ = 0;
};

// Overloaded from the first `high` to the first `low`, but never two changes within the hold time.
class Hysteresis {
 public:
  void set_hold(uint64_t hold_ns) { hold_ns_ = hold_ns; }
  // Whether the state changes.
  bool update(uint64_t now_ns, bool high, bool low) {
    if (overloaded_ ? !low : !high) return false;
    if (changed_ && now_ns - changed_ns_ < hold_ns_) return false;
    overloaded_ = !overloaded_;
    changed_ = true;
    changed_ns_ = now_ns;
    return true;
  }
  bool overloaded() const { return overloaded_; }

 private:
  uint64_t hold_ns_ = 0;
  uint64_t changed_ns_ = 0;
  bool changed_ = false;
  bool overloaded_ = false;
};

}  // namespace e2
