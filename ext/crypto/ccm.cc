// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/ccm.h"

#include <algorithm>

#include "crypto/block.h"
#include "host/isa.h"

namespace e2 {
namespace {

// From the flags of a counter block to those of the first block: there is more to authenticate than
// text, and tags have 8 bytes.
constexpr uint64_t kFirstFlags = 0x40 | (kCcmTagBytes - 2) / 2 << 3;
constexpr uint64_t kCounterAt = 56;  // of the upper half

struct alignas(64) Row {
  uint8_t bytes[CcmBatch::kRow];
};

void add_row(Row& row, const uint8_t* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kAesBlock) {
    xor_block(row.bytes + at, from + at);
  }
}

// The CBC-MACs, from the clear text.
void authenticate(const AesKey& key, const CcmBatch& batch, size_t count, size_t blocks,
                  Row& macs) {
  const size_t bytes = count * kAesBlock;
  for (size_t at = 0; at < bytes; at += kAesBlock) {
    store_block(macs.bytes + at, load_block(batch.heads + at) ^ Block{kFirstFlags, 0});
  }
  aes_blocks(key, macs.bytes, macs.bytes, count);
  add_row(macs, batch.aads, bytes);
  aes_blocks(key, macs.bytes, macs.bytes, count);
  for (size_t block = 0; block < blocks; ++block) {
    add_row(macs, batch.text[block], bytes);
    aes_blocks(key, macs.bytes, macs.bytes, count);
  }
}

// Block `number` of the key streams.
void make_stream(const AesKey& key, const CcmBatch& batch, size_t count, uint64_t number,
                 Row& stream) {
  const Block mask = {~uint64_t{0}, ~uint64_t{0} >> 8};
  const Block counter = {0, number << kCounterAt};
  for (size_t at = 0; at < count * kAesBlock; at += kAesBlock) {
    store_block(stream.bytes + at, (load_block(batch.heads + at) & mask) | counter);
  }
  aes_blocks(key, stream.bytes, stream.bytes, count);
}

void apply_stream(const AesKey& key, CcmBatch& batch, size_t count, size_t len) {
  const size_t blocks = (len + kAesBlock - 1) / kAesBlock;
  for (size_t block = 0; block < blocks; ++block) {
    Row stream;
    make_stream(key, batch, count, block + 1, stream);
    const size_t used = std::min(len - block * kAesBlock, kAesBlock);
    for (size_t i = 0; i < count; ++i) {
      std::memset(stream.bytes + i * kAesBlock + used, 0, kAesBlock - used);
      uint8_t* const text = batch.text[block] + i * kAesBlock;
      std::memset(text + used, 0, kAesBlock - used);
      xor_block(text, stream.bytes + i * kAesBlock);
    }
  }
}

void make_tags(const AesKey& key, const CcmBatch& batch, size_t count, const Row& macs,
               uint8_t* tags) {
  Row masks;
  make_stream(key, batch, count, 0, masks);
  for (size_t i = 0; i < count; ++i) {
    const Block tag =
        load_block(macs.bytes + i * kAesBlock) ^ load_block(masks.bytes + i * kAesBlock);
    std::memcpy(tags + i * kCcmTagBytes, &tag, kCcmTagBytes);
  }
}

void seal_any(const AesKey& key, CcmBatch& batch, size_t count, size_t len) {
  Row macs;
  authenticate(key, batch, count, (len + kAesBlock - 1) / kAesBlock, macs);
  apply_stream(key, batch, count, len);
  make_tags(key, batch, count, macs, batch.tags);
}

void open_any(const AesKey& key, CcmBatch& batch, size_t count, size_t len, uint64_t* tags) {
  Row macs;
  apply_stream(key, batch, count, len);
  authenticate(key, batch, count, (len + kAesBlock - 1) / kAesBlock, macs);
  make_tags(key, batch, count, macs, reinterpret_cast<uint8_t*>(tags));
}

constexpr CcmKernels kCcmAny = {seal_any, open_any};

const CcmKernels& choose() {
#if defined(__x86_64__)
  if (isa_extras().vaes) return kCcmVaes;
#endif
  return kCcmAny;
}

const CcmKernels& kernels() {
  static const CcmKernels& chosen = choose();
  return chosen;
}

}  // namespace

void ccm_seal(const AesKey& key, CcmBatch& batch, size_t count, size_t len) {
  kernels().seal(key, batch, count, len);
}

uint32_t ccm_open(const AesKey& key, CcmBatch& batch, size_t count, size_t len) {
  uint64_t tags[kCcmMaxMessages];
  kernels().open(key, batch, count, len, tags);
  uint32_t authentic = 0;
  for (size_t i = 0; i < count; ++i) {
    uint64_t tag;
    std::memcpy(&tag, batch.tag(i), sizeof tag);
    authentic |= static_cast<uint32_t>(tag == tags[i]) << i;
  }
  return authentic;
}

}  // namespace e2
