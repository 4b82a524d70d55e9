// SPDX-License-Identifier: BSD-3-Clause
// TwoRateMeter: the colour-blind meter of RFC 2698, for any number of workers at a time.
//
// A bucket holds up to `burst` bytes and fills at `rate` bytes a second. What it has is the bytes
// that flowed in since the clock began, less those taken or spilled; only the second number is
// kept, so taking is one compare-and-swap. Both are modulo 2^64: a bucket left alone for
// 2^63 / rate seconds (97 days at the highest rate) may look empty once.
#pragma once

#include <atomic>
#include <cstdint>

namespace e2 {

constexpr uint64_t kMaxMeterRate = uint64_t{1} << 40;   // bytes per second
constexpr uint64_t kMaxMeterBurst = uint64_t{1} << 40;  // bytes

class TokenBucket {
 public:
  // Full at `now_ns`. The rate is 1..kMaxMeterRate.
  TokenBucket(uint64_t rate, uint64_t burst, uint64_t now_ns) : burst_(burst) {
    constexpr uint64_t kNsPerSecond = 1'000'000'000;
    Wide step = rate;
    while (step << 1 <= Wide{kNsPerSecond} << 63) {  // step / kNsPerSecond stays below 2^64
      step <<= 1;
      ++shift_;
    }
    step_ = static_cast<uint64_t>(step / kNsPerSecond);
    gone_.store(flowed(now_ns) - burst, std::memory_order_relaxed);
  }

  // Takes `bytes`, or nothing.
  bool take(uint64_t now_ns, uint32_t bytes) {
    const uint64_t in = flowed(now_ns);
    uint64_t gone = gone_.load(std::memory_order_relaxed);
    while (true) {
      auto has = static_cast<int64_t>(in - gone);
      if (has > static_cast<int64_t>(burst_)) has = static_cast<int64_t>(burst_);
      if (has < static_cast<int64_t>(bytes)) return false;
      const uint64_t left = in - static_cast<uint64_t>(has) + bytes;
      if (gone_.compare_exchange_weak(gone, left, std::memory_order_relaxed)) return true;
    }
  }

 private:
  __extension__ using Wide = unsigned __int128;

  uint64_t flowed(uint64_t now_ns) const {
    return static_cast<uint64_t>(Wide{now_ns} * step_ >> shift_);
  }

  uint64_t step_ = 0;  // bytes per nanosecond, times 2^shift_
  uint32_t shift_ = 0;
  uint64_t burst_;
  std::atomic<uint64_t> gone_{0};
};

enum class Colour : uint8_t { kGreen, kYellow, kRed };

class TwoRateMeter {
 public:
  struct Rates {
    uint64_t committed = 0;
    uint64_t peak = 0;
    uint64_t committed_burst = 0;
    uint64_t peak_burst = 0;
  };

  TwoRateMeter(const Rates& rates, uint64_t now_ns)
      : peak_(rates.peak, rates.peak_burst, now_ns),
        committed_(rates.committed, rates.committed_burst, now_ns) {}

  Colour mark(uint64_t now_ns, uint32_t bytes) {
    if (!peak_.take(now_ns, bytes)) return Colour::kRed;
    return committed_.take(now_ns, bytes) ? Colour::kGreen : Colour::kYellow;
  }

 private:
  TokenBucket peak_;
  TokenBucket committed_;
};

}  // namespace e2
