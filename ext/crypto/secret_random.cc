// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/secret_random.h"

#include <sys/random.h>

#include <cerrno>
#include <cstring>
#include <system_error>

namespace e2 {
namespace {

struct Seed {
  uint8_t bytes[kSeedBytes];

  explicit Seed(const uint8_t* given) {
    if (given != nullptr) {
      std::memcpy(bytes, given, sizeof bytes);
      return;
    }
    while (::getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) {
      if (errno != EINTR) throw std::system_error(errno, std::generic_category(), "getrandom");
    }
  }
  ~Seed() { explicit_bzero(bytes, sizeof bytes); }
  Seed(const Seed&) = delete;
  Seed& operator=(const Seed&) = delete;
};

}  // namespace

SecretRandom::SecretRandom(const uint8_t* seed) : key_(Seed(seed).bytes) {}

SecretRandom::~SecretRandom() { explicit_bzero(buffer_, sizeof buffer_); }

uint64_t SecretRandom::next() {
  if (used_ == kBuffered) {
    for (size_t i = 0; i < kBuffered; i += 2) {
      buffer_[i] = counter_++;
      buffer_[i + 1] = 0;
    }
    auto* bytes = reinterpret_cast<uint8_t*>(buffer_);
    aes_blocks(key_, bytes, bytes, sizeof buffer_ / kAesBlock);
    used_ = 0;
  }
  return buffer_[used_++];
}

uint64_t SecretRandom::below(uint64_t bound) {
  const uint64_t surplus =
      -bound % bound;  // 2^64 mod bound: the first numbers would come too often
  uint64_t number = next();
  while (number < surplus) number = next();
  return number % bound;
}

}  // namespace e2
