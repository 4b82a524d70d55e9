// SPDX-License-Identifier: BSD-3-Clause
// AES-CCM with 12-byte nonces and 8-byte tags (NIST SP 800-38C; AES_128_CCM_8 of RFC 6655) for up
// to 32 short messages of one length at a time.
//
// A CBC-MAC waits for each block before the next one, so one message alone is slow; but the blocks
// of many messages go through the AES unit side by side, and then CCM takes fewer cycles for a
// message of two or three blocks than GCM does. Tags of 8 bytes are as strong as 64 bits say, which
// can't be said of GCM's when they are cut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "crypto/aes.h"

namespace e2 {

constexpr size_t kCcmTagBytes = 8;
constexpr size_t kCcmNonceBytes = 12;
constexpr size_t kCcmMaxAad = 14;     // one block, with its length
constexpr size_t kCcmMaxBlocks = 13;  // of one message
constexpr size_t kCcmMaxMessages = 32;

// Block b of message i is at text[b] + 16 i, so that vectors hold the same block of many messages.
struct alignas(64) CcmBatch {
  static constexpr size_t kRow = kCcmMaxMessages * kAesBlock;

  uint8_t heads[kRow];  // counter block 0, with the length where the counter is
  uint8_t aads[kRow];   // length in 2 bytes, then what is authenticated only
  uint8_t text[kCcmMaxBlocks][kRow];
  uint8_t tags[kCcmMaxMessages * kCcmTagBytes];

  // `start` and `end` are 8 and 4 bytes of nonce as they lie in memory.
  void set_nonce(size_t i, uint64_t start, uint32_t end, uint8_t len) {
    const uint64_t low = uint64_t{2} | start << 8;
    const uint64_t high = start >> 56 | uint64_t{end} << 8 | uint64_t{len} << 56;
    std::memcpy(heads + i * kAesBlock, &low, sizeof low);
    std::memcpy(heads + i * kAesBlock + 8, &high, sizeof high);
  }
  void get_nonce(size_t i, uint8_t* nonce) const {
    std::memcpy(nonce, heads + i * kAesBlock + 1, kCcmNonceBytes);
  }
  // Up to 6 bytes, the first one lowest; 8 more in `high`.
  void set_aad(size_t i, uint64_t bytes, uint64_t len, uint64_t high = 0) {
    const uint64_t low = len << 8 | bytes << 16;
    std::memcpy(aads + i * kAesBlock, &low, sizeof low);
    std::memcpy(aads + i * kAesBlock + 8, &high, sizeof high);
  }
  uint8_t* tag(size_t i) { return tags + i * kCcmTagBytes; }

  // What lies past the text's end in its last block becomes zero.
  void put_text(size_t i, const uint8_t* from, size_t len) {
    size_t done = 0;
    for (; done + kAesBlock <= len; done += kAesBlock) {
      std::memcpy(text[done / kAesBlock] + i * kAesBlock, from + done, kAesBlock);
    }
    if (done == len) return;
    // Two whole stores: several smaller ones would keep whoever reads the block waiting.
    const size_t rest = len - done;
    uint64_t low;
    uint64_t high = 0;
    if (len < 8) {
      low = 0;
      std::memcpy(&low, from, len);
    } else if (rest <= 8) {
      low = last_word(from + len) >> (8 - rest) * 8;
    } else {
      std::memcpy(&low, from + done, sizeof low);
      high = last_word(from + len) >> (16 - rest) * 8;
    }
    uint8_t* const to = text[done / kAesBlock] + i * kAesBlock;
    std::memcpy(to, &low, sizeof low);
    std::memcpy(to + 8, &high, sizeof high);
  }
  void get_text(size_t i, uint8_t* to, size_t len) const {
    size_t done = 0;
    for (; done + kAesBlock <= len; done += kAesBlock) {
      std::memcpy(to + done, text[done / kAesBlock] + i * kAesBlock, kAesBlock);
    }
    if (done < len) std::memcpy(to + done, text[done / kAesBlock] + i * kAesBlock, len - done);
  }

 private:
  static uint64_t last_word(const uint8_t* end) {
    uint64_t word;
    std::memcpy(&word, end - sizeof word, sizeof word);
    return word;
  }
};

// The first `count` messages, all of `len` bytes (more than none), in place. What lies past the end
// of a text in its last block must be zero. A nonce may serve once under a key.
void ccm_seal(const AesKey& key, CcmBatch& batch, size_t count, size_t len);

// Bit i of the answer says whether message i is authentic; texts of others are undefined.
[[nodiscard]] uint32_t ccm_open(const AesKey& key, CcmBatch& batch, size_t count, size_t len);

// Per instruction set; tags of `open` go to `tags`.
struct CcmKernels {
  void (*seal)(const AesKey& key, CcmBatch& batch, size_t count, size_t len);
  void (*open)(const AesKey& key, CcmBatch& batch, size_t count, size_t len, uint64_t* tags);
};
#if defined(__x86_64__)
extern const CcmKernels kCcmVaes;
#endif

}  // namespace e2
