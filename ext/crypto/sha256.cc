// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/sha256.h"

#include <cstring>
#include <string>

#include "host/headers.h"

namespace e2 {
namespace {

constexpr size_t kChunk = 64;
constexpr size_t kRounds = 64;
constexpr uint32_t kConstants[kRounds] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t turned(uint32_t word, uint32_t bits) { return word >> bits | word << (32 - bits); }

class Sha256 {
 public:
  ~Sha256() {
    explicit_bzero(state_, sizeof state_);
    explicit_bzero(chunk_, sizeof chunk_);
  }

  void add(std::string_view data) {
    bytes_ += data.size();
    for (const char byte : data) {
      chunk_[used_++] = static_cast<uint8_t>(byte);
      if (used_ == kChunk) take_chunk();
    }
  }

  Sha256Digest finish() {
    const uint64_t bits = bytes_ * 8;
    chunk_[used_++] = 0x80;
    if (used_ > kChunk - sizeof bits) fill_chunk();
    std::memset(chunk_ + used_, 0, kChunk - used_);
    store_be64(chunk_ + kChunk - sizeof bits, bits);
    take_chunk();
    Sha256Digest digest;
    for (size_t i = 0; i < 8; ++i) store_be32(digest.data() + 4 * i, state_[i]);
    return digest;
  }

 private:
  void fill_chunk() {
    std::memset(chunk_ + used_, 0, kChunk - used_);
    take_chunk();
  }

  void take_chunk() {
    uint32_t words[kRounds];
    for (size_t i = 0; i < 16; ++i) words[i] = load_be32(chunk_ + 4 * i);
    for (size_t i = 16; i < kRounds; ++i) {
      const uint32_t late = words[i - 2];
      const uint32_t early = words[i - 15];
      words[i] = words[i - 16] + words[i - 7] + (turned(late, 17) ^ turned(late, 19) ^ late >> 10) +
                 (turned(early, 7) ^ turned(early, 18) ^ early >> 3);
    }
    uint32_t s[8];
    std::memcpy(s, state_, sizeof s);
    for (size_t i = 0; i < kRounds; ++i) {
      const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
      const uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
      const uint32_t first = s[7] + (turned(s[4], 6) ^ turned(s[4], 11) ^ turned(s[4], 25)) +
                             choice + kConstants[i] + words[i];
      const uint32_t second = (turned(s[0], 2) ^ turned(s[0], 13) ^ turned(s[0], 22)) + majority;
      std::memmove(s + 1, s, 7 * sizeof *s);
      s[4] += first;
      s[0] = first + second;
    }
    for (size_t i = 0; i < 8; ++i) state_[i] += s[i];
    explicit_bzero(words, sizeof words);
    used_ = 0;
  }

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint64_t bytes_ = 0;
  size_t used_ = 0;
  uint8_t chunk_[kChunk];
};

std::string_view view(const Sha256Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

}  // namespace

Sha256Digest sha256(std::string_view data) {
  Sha256 hash;
  hash.add(data);
  return hash.finish();
}

Sha256Digest hmac_sha256(std::string_view key, std::string_view data) {
  char padded[kChunk] = {};
  Sha256Digest shortened;
  if (key.size() > kChunk) {
    shortened = sha256(key);
    key = view(shortened);
  }
  std::memcpy(padded, key.data(), key.size());
  for (char& byte : padded) byte ^= 0x36;
  Sha256 inner;
  inner.add({padded, kChunk});
  inner.add(data);
  const Sha256Digest digest = inner.finish();
  for (char& byte : padded) byte ^= 0x36 ^ 0x5c;
  Sha256 outer;
  outer.add({padded, kChunk});
  outer.add(view(digest));
  explicit_bzero(padded, sizeof padded);
  return outer.finish();
}

Sha256Digest hkdf_extract(std::string_view salt, std::string_view key) {
  return hmac_sha256(salt, key);  // NOLINT(readability-suspicious-call-argument): RFC 5869
}

void hkdf_expand(const Sha256Digest& extracted, std::string_view info, uint8_t* out,
                 size_t out_bytes) {
  Sha256Digest block = hmac_sha256(view(extracted), std::string(info) + '\x01');
  std::memcpy(out, block.data(), out_bytes);
  explicit_bzero(block.data(), block.size());
}

}  // namespace e2
