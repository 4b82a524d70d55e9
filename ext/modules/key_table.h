// SPDX-License-Identifier: BSD-3-Clause
// KeyTable: a hash table from keys of a fixed number of words to rows of words.
//
// A bucket is one cache line: 7 tags (hash and occupied bit) that one vector compare covers, the
// numbers of their rows, and how many entries found it full and went on to the next one. Most
// lookups that fail end at that line without a branch that depends on the data. Rows stand densely
// in one array: the key's words, then the payload's. A removal moves the last row into the gap, so
// row pointers last until the next change. Batches are compared with all rows where these are few
// (rule_scan.h). Lookups neither allocate nor lock; changes run beside them in a Live<>
// (host/live_table.h) only. Insertion and removal take amortised constant time.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "modules/field_key.h"
#include "modules/rule_scan.h"

namespace e2 {

class KeyTable {
 public:
  KeyTable() : KeyTable(0, 0) {}
  KeyTable(uint32_t key_words, uint32_t payload_words)
      : key_words_(key_words), stride_(key_words + payload_words), buckets_(1) {}

  // The payload of the key, or nullptr.
  const uint64_t* find(const uint64_t* key) const {
    const Place at = find_place(key, tag(key));
    return at.found ? payload(buckets_[at.bucket].rows[at.slot]) : nullptr;
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
    const uint32_t tagged = tag(key);
    const Place at = find_place(key, tagged);
    created = !at.found;
    if (!created) {
      return rows_.data() + size_t{buckets_[at.bucket].rows[at.slot]} * stride_ + key_words_;
    }
    if (size_ + 1 > kMeanFill * buckets_.size()) resize(2 * buckets_.size());
    rows_.resize((size_ + 1) * stride_);
    if (key_words_ != 0) std::memcpy(&rows_[size_ * stride_], key, key_words_ * sizeof *key);
    place(tagged, static_cast<uint32_t>(size_));
    return rows_.data() + size_++ * stride_ + key_words_;
  }

  // False when the key is not there.
  bool erase(const uint64_t* key) {
    const uint32_t tagged = tag(key);
    const Place at = find_place(key, tagged);
    if (!at.found) return false;
    const uint32_t removed = buckets_[at.bucket].rows[at.slot];
    const size_t last = size_ - 1;
    if (removed != last) {
      const Place moved = find_place(row(last), tag(row(last)));
      buckets_[moved.bucket].rows[moved.slot] = removed;
      std::memcpy(&rows_[size_t{removed} * stride_], row(last), stride_ * sizeof(uint64_t));
    }
    rows_.resize(last * stride_);
    size_ = last;
    buckets_[at.bucket].tags[at.slot] = 0;
    for (size_t b = home(tagged); b != at.bucket; b = next(b)) --buckets_[b].passed;
    return true;
  }

  void clear() {
    buckets_.assign(1, Bucket());
    rows_.clear();
    size_ = 0;
  }

  void reserve(size_t rows) {
    size_t buckets = buckets_.size();
    while (buckets * kMeanFill < rows) buckets *= 2;
    if (buckets > buckets_.size()) resize(buckets);
    rows_.reserve(rows * stride_);
  }

  size_t size() const { return size_; }
  // Row i: the key's words, then the payload's.
  const uint64_t* row(size_t i) const { return rows_.data() + i * stride_; }
  const uint64_t* payload(size_t i) const { return row(i) + key_words_; }
  const uint8_t* key_bytes(size_t i) const { return reinterpret_cast<const uint8_t*>(row(i)); }

 private:
  static constexpr uint32_t kSlots = 7;
  static constexpr size_t kMeanFill = 4;
  static constexpr uint32_t kOccupied = 1u << 31;

  struct alignas(kCacheLineBytes) Bucket {
    uint32_t tags[kSlots] = {};
    uint32_t passed = 0;  // entries that should be here and are further on
    uint32_t rows[kSlots] = {};

    // Bit s: slot s has that tag.
    uint32_t match(uint32_t tag) const {
#if defined(__x86_64__)
      const __m128i wanted = _mm_set1_epi32(static_cast<int32_t>(tag));
      const auto* halves = reinterpret_cast<const __m128i*>(tags);
      const __m128i low = _mm_cmpeq_epi32(_mm_load_si128(halves), wanted);
      const __m128i high = _mm_cmpeq_epi32(_mm_load_si128(halves + 1), wanted);
      const auto bytes = _mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128());
      return static_cast<uint32_t>(_mm_movemask_epi8(bytes)) & ((1u << kSlots) - 1);
#else
      uint32_t mask = 0;
      for (uint32_t s = 0; s < kSlots; ++s) mask |= static_cast<uint32_t>(tags[s] == tag) << s;
      return mask;
#endif
    }
  };
  static_assert(sizeof(Bucket) == kCacheLineBytes, "one line");

  struct Place {
    bool found;
    size_t bucket;
    uint32_t slot;
  };

  size_t home(uint32_t tag) const { return tag & (buckets_.size() - 1); }
  size_t next(size_t bucket) const { return (bucket + 1) & (buckets_.size() - 1); }

  // Both halves of the product: keys may differ in the upper bytes of a word only, which the lower
  // half never hears of.
  static uint64_t mix(uint64_t sum, uint64_t word) {
    __extension__ using Product = unsigned __int128;
    const Product product = static_cast<Product>(sum ^ word) * 0xd6e8feb86659fd93ULL;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }
  static uint32_t finish(uint64_t sum) {
    return static_cast<uint32_t>(sum ^ sum >> 32) | kOccupied;
  }
  static constexpr uint64_t kSeed = 0x9e3779b97f4a7c15ULL;

  uint32_t tag(const uint64_t* key) const {
    uint64_t sum = kSeed;
    for (uint32_t w = 0; w < key_words_; ++w) sum = mix(sum, key[w]);
    return finish(sum);
  }

  void scan(const KeyBatch& keys, uint32_t count, const uint64_t** payloads) const {
    static constexpr uint64_t kAllBits[kMaxKeyWords] = {~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL,
                                                        ~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL,
                                                        ~0ULL, ~0ULL, ~0ULL, ~0ULL};
    static constexpr uint8_t kColumns[kMaxKeyWords] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                       8, 9, 10, 11, 12, 13, 14, 15};
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

  // In stages that hide the latency of memory. kWords is the keys' size, or 0 for any. Out of line,
  // or the three of them leave their caller no registers.
  template <uint32_t kWords>
  [[gnu::noinline]] void look_up(const KeyBatch& keys, uint32_t count,
                                 const uint64_t** payloads) const {
    const uint32_t words = kWords == 0 ? key_words_ : kWords;
    const Bucket* const buckets = buckets_.data();
    const size_t last = buckets_.size() - 1;
    const uint64_t* const rows = rows_.data();
    const size_t stride = stride_;
    uint32_t tags[kMaxBatch];
    for (uint32_t i = 0; i < count; ++i) {
      uint64_t sum = kSeed;
      for (uint32_t w = 0; w < words; ++w) sum = mix(sum, keys.words[w][i]);
      tags[i] = finish(sum);
      __builtin_prefetch(&buckets[tags[i] & last]);
    }
    // Those that some bucket may hold: where it has the tag, or was full once.
    uint8_t open[kMaxBatch];
    uint32_t opened = 0;
    for (uint32_t i = 0; i < count; ++i) {
      const Bucket& bucket = buckets[tags[i] & last];
      const uint32_t hits = bucket.match(tags[i]);
      // A row that may be the one; any will do where there is none, as it is not read then.
      __builtin_prefetch(rows + bucket.rows[__builtin_ctz(hits | 1u << (kSlots - 1))] * stride);
      payloads[i] = nullptr;
      open[opened] = static_cast<uint8_t>(i);
      opened += (hits | bucket.passed) != 0;
    }
    for (uint32_t n = 0; n < opened; ++n) {
      const uint32_t i = open[n];
      const size_t first = tags[i] & last;
      size_t b = first;
      do {
        const Bucket& bucket = buckets[b];
        for (uint32_t hits = bucket.match(tags[i]); hits != 0; hits &= hits - 1) {
          const uint64_t* row = rows + bucket.rows[__builtin_ctz(hits)] * stride;
          uint64_t differs = 0;
          for (uint32_t w = 0; w < words; ++w) differs |= keys.words[w][i] ^ row[w];
          if (differs == 0) payloads[i] = row + words;
        }
        if (payloads[i] != nullptr || bucket.passed == 0) break;
        b = (b + 1) & last;
      } while (b != first);
    }
  }

  Place find_place(const uint64_t* key, uint32_t tag) const {
    size_t b = home(tag);
    do {
      const Bucket& bucket = buckets_[b];
      for (uint32_t hits = bucket.match(tag); hits != 0; hits &= hits - 1) {
        const auto slot = static_cast<uint32_t>(__builtin_ctz(hits));
        const size_t bytes = key_words_ * sizeof *key;
        if (bytes == 0 || std::memcmp(row(bucket.rows[slot]), key, bytes) == 0) {
          return {true, b, slot};
        }
      }
      if (bucket.passed == 0) break;
      b = next(b);
    } while (b != home(tag));
    return {false, b, 0};
  }

  // Puts a tag into the first bucket from its home on that has room; there is one.
  void place(uint32_t tag, uint32_t row) {
    for (size_t b = home(tag);; b = next(b)) {
      Bucket& bucket = buckets_[b];
      const uint32_t free = bucket.match(0);
      if (free == 0) {
        ++bucket.passed;
        continue;
      }
      const auto slot = static_cast<uint32_t>(__builtin_ctz(free));
      bucket.tags[slot] = tag;
      bucket.rows[slot] = row;
      return;
    }
  }

  void resize(size_t count) {
    std::vector<Bucket> old(count);
    old.swap(buckets_);
    for (const Bucket& bucket : old) {
      for (uint32_t s = 0; s < kSlots; ++s) {
        if (bucket.tags[s] != 0) place(bucket.tags[s], bucket.rows[s]);
      }
    }
  }

  uint32_t key_words_;
  uint32_t stride_;
  size_t size_ = 0;
  std::vector<Bucket> buckets_;  // a power of two of them
  std::vector<uint64_t> rows_;
};

}  // namespace e2
