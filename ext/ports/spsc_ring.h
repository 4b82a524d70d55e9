// SPDX-License-Identifier: BSD-3-Clause
// SpscRing: a bounded queue between one producing and one consuming thread, without locks.
//
// Each side keeps a private copy of the other's index and looks at the real one only when the copy
// says that there is no room (or nothing to take), so most operations touch no shared line.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace e2 {

template <typename T>
class SpscRing {
 public:
  // Holds up to `capacity` (at least 1) items.
  explicit SpscRing(uint32_t capacity) : limit_(std::max<uint32_t>(capacity, 1)) {
    uint64_t slots = 1;
    while (slots < limit_) slots *= 2;
    mask_ = slots - 1;
    slots_ = std::make_unique<T[]>(slots);
  }
  SpscRing(const SpscRing&) = delete;
  SpscRing& operator=(const SpscRing&) = delete;

  uint32_t capacity() const { return limit_; }
  // A snapshot; exact only when both sides are idle.
  uint32_t size() const {
    const uint64_t head = head_.load(std::memory_order_acquire);
    return static_cast<uint32_t>(tail_.load(std::memory_order_acquire) - head);
  }

  // Producer: appends the first n items, as many as fit, and returns n.
  uint32_t push(const T* items, uint32_t count) {
    const uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (limit_ - (tail - head_seen_) < count) head_seen_ = head_.load(std::memory_order_acquire);
    const uint32_t n =
        static_cast<uint32_t>(std::min<uint64_t>(count, limit_ - (tail - head_seen_)));
    for (uint32_t i = 0; i < n; ++i) slots_[(tail + i) & mask_] = items[i];
    tail_.store(tail + n, std::memory_order_release);
    return n;
  }

  // Consumer: takes up to `count` items, oldest first, and returns how many.
  uint32_t pop(T* items, uint32_t count) {
    const uint64_t head = head_.load(std::memory_order_relaxed);
    if (tail_seen_ - head < count) tail_seen_ = tail_.load(std::memory_order_acquire);
    const uint32_t n = static_cast<uint32_t>(std::min<uint64_t>(count, tail_seen_ - head));
    for (uint32_t i = 0; i < n; ++i) items[i] = slots_[(head + i) & mask_];
    head_.store(head + n, std::memory_order_release);
    return n;
  }

 private:
  static constexpr size_t kLine = 64;

  const uint32_t limit_;
  uint64_t mask_ = 0;
  std::unique_ptr<T[]> slots_;
  alignas(kLine) std::atomic<uint64_t> tail_{0};  // the producer's line
  uint64_t head_seen_ = 0;
  alignas(kLine) std::atomic<uint64_t> head_{0};  // the consumer's line
  uint64_t tail_seen_ = 0;
};

}  // namespace e2
