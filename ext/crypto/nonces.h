// SPDX-License-Identifier: BSD-3-Clause
// Nonces: 12 bytes that no other sender and no other start of this one uses under the same key.
//
// 8 bytes are random, drawn at the start and again after 2^32 nonces; 4 are counted. After 2^20
// draws under one key, a thousand gateways' restarts or years at line rate, two were the same with
// a probability of 2^-25; a new epoch's key starts anew. Nothing has to be agreed upon, remembered
// or derived: a receiver needs only the key. One per worker.
#pragma once

#include <cstdint>
#include <cstring>

#include "crypto/secret_random.h"

namespace e2 {

// As it lies in memory.
struct Nonce {
  uint64_t start;
  uint32_t end;

  void write(uint8_t* to) const {
    std::memcpy(to, &start, sizeof start);
    std::memcpy(to + sizeof start, &end, sizeof end);
  }
};

// Consecutive nonces, to be had without a look at memory.
class NonceRun {
 public:
  NonceRun(uint64_t start, uint32_t number) : start_(start), number_(number) {}
  Nonce next() { return {start_, __builtin_bswap32(number_++)}; }

 private:
  uint64_t start_;
  uint32_t number_;
};

class Nonces {
 public:
  Nonces() : random_(nullptr), start_(random_.next()) {}

  // `count` of them, which needn't all be used.
  NonceRun take(uint32_t count) {
    if (__builtin_expect(used_ + count > kNumbers, 0)) {
      start_ = random_.next();
      used_ = 0;
    }
    const NonceRun run(start_, static_cast<uint32_t>(used_));
    used_ += count;
    return run;
  }

 private:
  static constexpr uint64_t kNumbers = uint64_t{1} << 32;

  SecretRandom random_;
  uint64_t start_;
  uint64_t used_ = 0;
};

}  // namespace e2
