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

#include "crypto/replay_window.h"
#include "host/headers.h"

namespace e2 {

class ReplayGuard {
 public:
  static constexpr uint32_t kSenders = 64;

  // True, and remembered, where the nonce is new.
  bool is_new(const uint8_t* nonce) {
    uint64_t start;
    std::memcpy(&start, nonce, sizeof start);
    const uint32_t number = load_be32(nonce + sizeof start);
    Sender& sender = find(start);
    sender.used = ++clock_;
    return sender.window.add(number);
  }

 private:
  struct Sender {
    uint64_t start = 0;
    uint64_t used = 0;  // when, by `clock_`; 0 is never
    ReplayWindow window;
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

  uint64_t clock_ = 0;
  uint32_t last_ = 0;
  Sender senders_[kSenders];
};

}  // namespace e2
