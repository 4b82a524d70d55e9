// SPDX-License-Identifier: BSD-3-Clause
// ReplayGuard: whether a nonce (nonces.h) has been seen before, in bounded memory (RFC 4303, 3.4.3,
// for many senders). Ask only about authentic packets.
//
// Of each of the last 64 senders, which is a worker between two draws of its random bytes, the last
// 4096 numbers are remembered; older ones count as seen. What a sender sent that has been forgotten
// could come once more, until its epoch's key goes.
#pragma once

#include <cstdint>
#include <cstring>

#include "host/headers.h"

namespace e2 {

class ReplayGuard {
 public:
  static constexpr uint32_t kSenders = 64;
  static constexpr uint32_t kWindow = 4096;  // numbers; a power of 2

  // True, and remembered, where the nonce is new.
  bool is_new(const uint8_t* nonce) {
    uint64_t start;
    std::memcpy(&start, nonce, sizeof start);
    const uint32_t number = load_be32(nonce + sizeof start);
    Sender& sender = find(start);
    sender.used = ++clock_;
    const int64_t ahead = int64_t{number} - sender.highest;
    if (ahead > 0) {
      forget(sender, ahead);
      sender.highest = number;
    } else if (-ahead >= kWindow) {
      return false;
    }
    uint64_t& word = sender.seen[number % kWindow / 64];
    const uint64_t bit = uint64_t{1} << (number % 64);
    const bool seen = (word & bit) != 0;
    word |= bit;
    return !seen;
  }

 private:
  struct Sender {
    uint64_t start = 0;
    uint64_t used = 0;  // when, by `clock_`; 0 is never
    int64_t highest = -1;
    uint64_t seen[kWindow / 64] = {};
  };

  Sender& find(uint64_t start) {
    if (senders_[last_].start == start && senders_[last_].used != 0) return senders_[last_];
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < kSenders; ++i) {
      if (senders_[i].start == start && senders_[i].used != 0) return senders_[last_ = i];
      if (senders_[i].used < senders_[oldest].used) oldest = i;
    }
    last_ = oldest;
    senders_[oldest] = Sender();
    senders_[oldest].start = start;
    return senders_[oldest];
  }

  // The places of numbers that the window moves on to.
  static void forget(Sender& sender, int64_t ahead) {
    if (ahead >= kWindow) {
      std::memset(sender.seen, 0, sizeof sender.seen);
      return;
    }
    for (int64_t number = sender.highest + 1; number <= sender.highest + ahead; ++number) {
      const auto place = static_cast<uint64_t>(number) % kWindow;
      sender.seen[place / 64] &= ~(uint64_t{1} << (place % 64));
    }
  }

  uint64_t clock_ = 0;
  uint32_t last_ = 0;
  Sender senders_[kSenders];
};

}  // namespace e2
