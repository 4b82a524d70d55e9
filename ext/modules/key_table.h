// SPDX-License-Identifier: BSD-3-Clause
// KeyTable: a hash table from keys of a fixed number of words to rows of words.
//
// Open addressing with linear probing over 8-byte slots (32-bit hash, row number); rows stand
// densely in one array: the key's words, then the payload's. A removal moves the last row into the
// gap, so row pointers last until the next change. Batches are compared with all rows where these
// are few (rule_scan.h). Lookups neither allocate nor lock; changes must not run beside them.
// Insertion and removal take amortised constant time.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "modules/field_key.h"
#include "modules/rule_scan.h"

namespace e2 {

class KeyTable {
 public:
  KeyTable() : KeyTable(0, 0) {}
  KeyTable(uint32_t key_words, uint32_t payload_words)
      : key_words_(key_words), stride_(key_words + payload_words), slots_(kMinSlots) {}

  // The payload of the key, or nullptr.
  const uint64_t* find(const uint64_t* key) const {
    const size_t at = find_slot(key, hash(key));
    return slots_[at] == 0 ? nullptr : payload(row_of(slots_[at]));
  }

  // The same for a batch of keys.
  void find_batch(const KeyBatch& keys, uint32_t count, const uint64_t** payloads) const {
    if (size_ <= kMaxScanRules) {
      scan(keys, count, payloads);
    } else if (key_words_ == 1) {
      look_up<1>(keys, count, payloads);
    } else if (key_words_ == 2) {
      look_up<2>(keys, count, payloads);
    } else {
      look_up<0>(keys, count, payloads);
    }
  }

  // The payload of the key, which is new and zero where `created`.
  uint64_t* insert(const uint64_t* key, bool& created) {
    const uint32_t hashed = hash(key);
    size_t at = find_slot(key, hashed);
    created = slots_[at] == 0;
    if (created) {
      if (2 * (size_ + 1) > slots_.size()) {
        resize(2 * slots_.size());
        at = find_slot(key, hashed);
      }
      rows_.resize((size_ + 1) * stride_);
      if (key_words_ != 0) std::memcpy(&rows_[size_ * stride_], key, key_words_ * sizeof *key);
      slots_[at] = static_cast<uint64_t>(hashed) << 32 | ++size_;
    }
    return rows_.data() + row_of(slots_[at]) * stride_ + key_words_;
  }

  // False when the key is not there.
  bool erase(const uint64_t* key) {
    size_t gap = find_slot(key, hash(key));
    if (slots_[gap] == 0) return false;
    const size_t removed = row_of(slots_[gap]);
    const size_t last = size_ - 1;
    if (removed != last) {
      const size_t moved = find_slot(row(last), hash(row(last)));
      slots_[moved] = static_cast<uint64_t>(hash_of(slots_[moved])) << 32 | (removed + 1);
      std::memcpy(&rows_[removed * stride_], row(last), stride_ * sizeof(uint64_t));
    }
    rows_.resize(last * stride_);
    size_ = last;
    // Close the gap: an entry moves up unless its own start lies behind the gap.
    const size_t mask = slots_.size() - 1;
    for (size_t at = next(gap); slots_[at] != 0; at = next(at)) {
      const size_t home = hash_of(slots_[at]) & mask;
      if (((at - home) & mask) < ((at - gap) & mask)) continue;
      slots_[gap] = slots_[at];
      gap = at;
    }
    slots_[gap] = 0;
    return true;
  }

  void clear() {
    slots_.assign(kMinSlots, 0);
    rows_.clear();
    size_ = 0;
  }

  void reserve(size_t rows) {
    size_t slots = slots_.size();
    while (slots < 2 * rows) slots *= 2;
    if (slots > slots_.size()) resize(slots);
    rows_.reserve(rows * stride_);
  }

  size_t size() const { return size_; }
  // Row i: the key's words, then the payload's.
  const uint64_t* row(size_t i) const { return rows_.data() + i * stride_; }
  const uint64_t* payload(size_t i) const { return row(i) + key_words_; }
  const uint8_t* key_bytes(size_t i) const { return reinterpret_cast<const uint8_t*>(row(i)); }

 private:
  static constexpr size_t kMinSlots = 8;

  static uint32_t hash_of(uint64_t slot) { return static_cast<uint32_t>(slot >> 32); }
  static size_t row_of(uint64_t slot) { return static_cast<uint32_t>(slot) - 1; }
  size_t next(size_t at) const { return (at + 1) & (slots_.size() - 1); }

  static uint64_t mix(uint64_t sum, uint64_t word) {
    sum = (sum ^ word) * 0xd6e8feb86659fd93ULL;
    return sum ^ sum >> 32;
  }
  static uint32_t finish(uint64_t sum) { return static_cast<uint32_t>(sum ^ sum >> 29); }
  static constexpr uint64_t kSeed = 0x9e3779b97f4a7c15ULL;

  uint32_t hash(const uint64_t* key) const {
    uint64_t sum = kSeed;
    // `key` has key_words_ words. NOLINTNEXTLINE(clang-analyzer-security.ArrayBound)
    for (uint32_t w = 0; w < key_words_; ++w) sum = mix(sum, key[w]);
    return finish(sum);
  }

  void scan(const KeyBatch& keys, uint32_t count, const uint64_t** payloads) const {
    static constexpr uint64_t kAllBits[kMaxKeyWords] = {~0ULL, ~0ULL, ~0ULL, ~0ULL,
                                                        ~0ULL, ~0ULL, ~0ULL, ~0ULL};
    static constexpr uint8_t kColumns[kMaxKeyWords] = {0, 1, 2, 3, 4, 5, 6, 7};
    uint64_t hits[kMaxBatch];
    rule_scan(
        keys, count,
        {rows_.data(), stride_, kAllBits, 0, kColumns, key_words_, static_cast<uint32_t>(size_)},
        hits);
    const uint64_t* const first = payload(0);
    const size_t stride = stride_;
    for (uint32_t i = 0; i < count; ++i) {
      payloads[i] = hits[i] == kNoRule ? nullptr : first + hits[i] * stride;
    }
  }

  // In stages that hide the latency of memory. kWords is the keys' size, or 0 for any.
  template <uint32_t kWords>
  void look_up(const KeyBatch& keys, uint32_t count, const uint64_t** payloads) const {
    const uint32_t words = kWords == 0 ? key_words_ : kWords;
    const uint64_t* const slots = slots_.data();
    const size_t mask = slots_.size() - 1;
    const uint64_t* const rows = rows_.data();
    const size_t stride = stride_;
    uint32_t hashes[kMaxBatch];
    for (uint32_t i = 0; i < count; ++i) {
      uint64_t sum = kSeed;
      for (uint32_t w = 0; w < words; ++w) sum = mix(sum, keys.words[w][i]);
      hashes[i] = finish(sum);
      __builtin_prefetch(&slots[hashes[i] & mask]);
    }
    size_t at[kMaxBatch];
    for (uint32_t i = 0; i < count; ++i) {
      size_t slot = hashes[i] & mask;
      while (slots[slot] != 0 && hash_of(slots[slot]) != hashes[i]) slot = (slot + 1) & mask;
      at[i] = slot;
      if (slots[slot] != 0) __builtin_prefetch(rows + row_of(slots[slot]) * stride);
    }
    for (uint32_t i = 0; i < count; ++i) {
      payloads[i] = nullptr;
      for (size_t slot = at[i]; slots[slot] != 0; slot = (slot + 1) & mask) {
        if (hash_of(slots[slot]) != hashes[i]) continue;
        const uint64_t* row = rows + row_of(slots[slot]) * stride;
        uint64_t differs = 0;
        for (uint32_t w = 0; w < words; ++w) differs |= keys.words[w][i] ^ row[w];
        if (differs != 0) continue;
        payloads[i] = row + words;
        break;
      }
    }
  }

  bool holds(uint64_t slot, uint32_t hashed, const uint64_t* key) const {
    if (hash_of(slot) != hashed) return false;
    const uint64_t* other = row(row_of(slot));
    uint64_t difference = 0;
    // NOLINTNEXTLINE(clang-analyzer-security.ArrayBound)
    for (uint32_t i = 0; i < key_words_; ++i) difference |= key[i] ^ other[i];
    return difference == 0;
  }

  // Where the key is, or else the empty slot where it would go.
  size_t find_slot(const uint64_t* key, uint32_t hashed) const {
    size_t at = hashed & (slots_.size() - 1);
    while (slots_[at] != 0 && !holds(slots_[at], hashed, key)) at = next(at);
    return at;
  }

  void resize(size_t count) {
    std::vector<uint64_t> old(count);
    old.swap(slots_);
    for (uint64_t slot : old) {
      if (slot == 0) continue;
      size_t at = hash_of(slot) & (count - 1);
      while (slots_[at] != 0) at = next(at);
      slots_[at] = slot;
    }
  }

  uint32_t key_words_;
  uint32_t stride_;
  size_t size_ = 0;
  std::vector<uint64_t> slots_;  // a power of two of them, at least half empty; 0 is empty
  std::vector<uint64_t> rows_;
};

}  // namespace e2
