// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/aes.h"

#include <algorithm>
#include <cstring>

#include "crypto/aes_kernels.h"
#include "host/headers.h"
#include "host/isa.h"

namespace e2 {
namespace {

const AesKernels& choose() {
#if defined(__x86_64__)
  if (isa_extras().vaes) return kAesVaes;
  if (isa_extras().aes) return kAesNi;
#endif
  return kAesPortable;
}

const AesKernels& kernels() {
  static const AesKernels& chosen = choose();
  return chosen;
}

constexpr size_t kStride = GcmKey::kStride * kAesBlock;

// Bytes that GHASH takes, gathered to strides: a call of the kernel ends with a reduction, so few
// calls are better than three for a short packet.
class Hash {
 public:
  explicit Hash(const GcmKey& key) : key_(key) {}

  void add(const uint8_t* data, size_t len) {
    while (len > 0) {
      if (used_ == 0 && len >= kStride) {
        const size_t whole = len - len % kStride;
        kernels().ghash(key_, state_, data, whole / kAesBlock);
        data += whole;
        len -= whole;
        continue;
      }
      const size_t part = std::min(len, kStride - used_);
      std::memcpy(pending_ + used_, data, part);
      used_ += part;
      data += part;
      len -= part;
      if (used_ == kStride) flush();
    }
  }

  // Zeros to the end of the block.
  void pad() {
    const size_t end = (used_ + kAesBlock - 1) / kAesBlock * kAesBlock;
    std::memset(pending_ + used_, 0, end - used_);
    used_ = end;
    if (used_ == kStride) flush();
  }

  void flush() {
    if (used_ > 0) kernels().ghash(key_, state_, pending_, used_ / kAesBlock);
    used_ = 0;
  }

  uint8_t* state() { return state_; }

 private:
  const GcmKey& key_;
  size_t used_ = 0;
  uint8_t state_[kAesBlock] = {};
  alignas(64) uint8_t pending_[kStride];
};

void make_tag(const GcmKey& key, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
              const uint8_t* text, size_t len, uint8_t* tag) {
  Hash hash(key);
  hash.add(aad, aad_len);
  hash.pad();
  hash.add(text, len);
  hash.pad();
  uint8_t block[kAesBlock];
  store_be64(block, aad_len * 8);
  store_be64(block + 8, len * 8);
  hash.add(block, sizeof block);
  hash.flush();
  std::memcpy(block, nonce, kGcmNonceBytes);
  store_be32(block + kGcmNonceBytes, 1);
  kernels().blocks(key.aes(), block, block, 1);
  store_be64(tag, load_be64(block) ^ __builtin_bswap64(load_be64(hash.state() + 8)));
  store_be64(tag + 8, load_be64(block + 8) ^ __builtin_bswap64(load_be64(hash.state())));
}

}  // namespace

AesKey::AesKey(const uint8_t* key, size_t bytes)
    : count_(bytes == kAes256KeyBytes ? kLongRounds : kRounds) {
  const size_t given = bytes / 4;
  const size_t count = 4 * (static_cast<size_t>(count_) + 1);
  uint32_t words[4 * (kLongRounds + 1)];
  for (size_t i = 0; i < given; ++i) words[i] = load_be32(key + 4 * i);
  uint32_t constant = 1;
  for (size_t i = given; i < count; ++i) {
    uint32_t word = words[i - 1];
    if (i % given == 0) {
      word = aes_sub_word(word << 8 | word >> 24) ^ constant << 24;
      constant = constant << 1 ^ (constant >> 7) * 0x11b;
    } else if (i % given == 4) {  // only in a long key
      word = aes_sub_word(word);
    }
    words[i] = words[i - given] ^ word;
  }
  for (size_t i = 0; i < count; ++i) store_be32(&rounds_[i / 4][i % 4 * 4], words[i]);
  for (int i = 0; i <= count_; ++i) aes_planes(rounds_[i], planes_[i]);
  explicit_bzero(words, sizeof words);
}

AesKey::~AesKey() {
  explicit_bzero(rounds_, sizeof rounds_);
  explicit_bzero(&count_, sizeof count_);
  explicit_bzero(planes_, sizeof planes_);
}

GcmKey::GcmKey(const uint8_t* key, size_t bytes) : aes_(key, bytes) {
  uint8_t zero[kAesBlock] = {};
  uint8_t hash_key[kAesBlock];
  aes_blocks(aes_, zero, hash_key, 1);
  // POLYVAL's key for GHASH's: bytes in reverse, times x.
  uint64_t high = load_be64(hash_key);
  uint64_t low = load_be64(hash_key + 8);
  const uint64_t carry = high >> 63;
  high = (high << 1 | low >> 63) ^ carry * 0xc200000000000000U;
  low = low << 1 ^ carry;
  uint8_t* first = powers_[kPowers - 1];
  std::memcpy(first, &low, sizeof low);
  std::memcpy(first + sizeof low, &high, sizeof high);
  for (int i = kPowers - 2; i >= 0; --i) {
    std::memcpy(powers_[i], powers_[i + 1], kAesBlock);
    polyval_multiply(powers_[i], first);
  }
  explicit_bzero(hash_key, sizeof hash_key);
}

GcmKey::~GcmKey() { explicit_bzero(powers_, sizeof powers_); }

void aes_blocks(const AesKey& key, const uint8_t* in, uint8_t* out, size_t blocks) {
  kernels().blocks(key, in, out, blocks);
}

void aes_ctr(const AesKey& key, const uint8_t* nonce, uint32_t counter, const uint8_t* in,
             uint8_t* out, size_t len) {
  kernels().ctr(key, nonce, counter, in, out, len);
}

void gcm_seal(const GcmKey& key, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
              const uint8_t* in, uint8_t* out, size_t len, uint8_t* tag) {
  if (kernels().seal != nullptr) {
    kernels().seal(key, nonce, aad, aad_len, in, out, len, tag);
  } else {
    kernels().ctr(key.aes(), nonce, 2, in, out, len);
    make_tag(key, nonce, aad, aad_len, out, len, tag);
  }
}

bool gcm_open(const GcmKey& key, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
              const uint8_t* in, uint8_t* out, size_t len, const uint8_t* tag) {
  uint8_t expected[kGcmTagBytes];
  if (kernels().tag != nullptr) {
    kernels().tag(key, nonce, aad, aad_len, in, len, expected);
  } else {
    make_tag(key, nonce, aad, aad_len, in, len, expected);
  }
  uint8_t differs = 0;
  for (size_t i = 0; i < kGcmTagBytes; ++i) differs |= expected[i] ^ tag[i];
  if (differs != 0) return false;
  kernels().ctr(key.aes(), nonce, 2, in, out, len);
  return true;
}

}  // namespace e2
