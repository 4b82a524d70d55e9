// SPDX-License-Identifier: BSD-3-Clause
// SecretRandom: numbers that nobody can guess, from AES in counter mode under 128 bits of the
// operating system's, or under a seed, with which the numbers are the same each time.
#pragma once

#include <cstdint>

#include "crypto/aes.h"

namespace e2 {

constexpr size_t kSeedBytes = kAesKeyBytes;

class SecretRandom {
 public:
  // kSeedBytes, or nullptr for the operating system's. Throws std::system_error without entropy.
  explicit SecretRandom(const uint8_t* seed);
  ~SecretRandom();
  SecretRandom(const SecretRandom&) = delete;
  SecretRandom& operator=(const SecretRandom&) = delete;

  uint64_t next();
  // Each number less than `bound` (> 0) is as likely as any other.
  uint64_t below(uint64_t bound);

 private:
  static constexpr size_t kBuffered = 64;

  AesKey key_;
  uint64_t counter_ = 0;
  size_t used_ = kBuffered;
  uint64_t buffer_[kBuffered] = {};
};

}  // namespace e2
