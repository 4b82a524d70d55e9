// SPDX-License-Identifier: BSD-3-Clause
// ReplayWindow: which of one sender's last kNumbers numbers were there before (RFC 4303, 3.4.3).
// Older ones count as seen. Add only the numbers of authentic packets.
#pragma once

#include <cstdint>
#include <cstring>

namespace e2 {

class ReplayWindow {
 public:
  static constexpr uint32_t kNumbers = 4096;  // a power of 2

  bool seen(uint64_t number) const {
    if (number >= end_) return false;
    if (end_ - number > kNumbers) return true;
    return (words_[place(number)] & bit(number)) != 0;
  }

  // True, and remembered, where the number is new.
  bool add(uint64_t number) {
    if (number >= end_) {
      forget(number);
      end_ = number + 1;
    } else if (end_ - number > kNumbers) {
      return false;
    }
    uint64_t& word = words_[place(number)];
    const bool was = (word & bit(number)) != 0;
    word |= bit(number);
    return !was;
  }

  // Behind the highest number that was added.
  uint64_t end() const { return end_; }

 private:
  static size_t place(uint64_t number) { return number % kNumbers / 64; }
  static uint64_t bit(uint64_t number) { return uint64_t{1} << number % 64; }

  // The places that the window moves on to.
  void forget(uint64_t newest) {
    if (newest - end_ >= kNumbers) {
      std::memset(words_, 0, sizeof words_);
      return;
    }
    for (uint64_t number = end_; number <= newest; ++number) words_[place(number)] &= ~bit(number);
  }

  uint64_t end_ = 0;
  uint64_t words_[kNumbers / 64] = {};
};

}  // namespace e2
