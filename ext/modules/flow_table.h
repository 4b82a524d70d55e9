// SPDX-License-Identifier: BSD-3-Clause
// FlowTable: the flows of a FlowSteer, each with its gate, in memory that is taken once.
//
// An entry is one cache line, and so is a bucket: 8 tags that are compared at once, and the numbers
// of 8 entries. A full bucket passes entries on to the next one and counts them, so that a search
// knows whether to go on. There are buckets for twice the flows: few are ever full. Places in the
// table depend on a secret, so that nobody can choose flows that meet in one bucket.
//
// One thread at a time may use a table; beside it others may read the atomic members of entries.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "host/module.h"
#include "modules/flow_affinity.h"

namespace e2 {

// Zeroed memory, in large pages where the kernel has some.
template <typename T>
class LargeArray {
 public:
  LargeArray() = default;
  ~LargeArray() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }
  LargeArray(const LargeArray&) = delete;
  LargeArray& operator=(const LargeArray&) = delete;

  bool allocate(size_t count) {
    bytes_ = count * sizeof(T);
    void* data = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return false;
    (void)madvise(data, bytes_, MADV_HUGEPAGE);
    std::memset(data, 0, bytes_);  // now, and not packet by packet
    data_ = static_cast<T*>(data);
    return true;
  }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t bytes_ = 0;
};

// Written by one thread, read by any.
template <typename T>
struct Field : std::atomic<T> {
  Field& operator=(T value) {
    this->store(value, std::memory_order_relaxed);
    return *this;
  }
  operator T() const {  // NOLINT(google-explicit-constructor)
    return this->load(std::memory_order_relaxed);
  }
};

struct alignas(kCacheLineBytes) FlowEntry {
  static constexpr uint8_t kUsed = 1;
  static constexpr uint8_t kException = 2;  // its gate is not, or need not be, that of its range
  static constexpr uint8_t kClosing = 4;    // its connection has ended

  uint64_t key[5];  // 0 where the entry is free: no key looks like that
  Field<uint64_t> used_ns;
  uint32_t id;
  Field<uint16_t> gate;
  Field<uint8_t> state;
  uint8_t ends;           // bit per direction whose last packet was seen
  Field<uint16_t> split;  // whose exception it is: number + 1; 0: of none
  uint32_t next_free;
};
static_assert(sizeof(FlowEntry) == kCacheLineBytes, "a flow is one cache line");

class FlowTable {
 public:
  static constexpr uint32_t kNone = 0xffffffff;

  // False where there is no memory.
  bool init(uint32_t most_flows, uint64_t seed) {
    Random random;
    random.state ^= seed;
    for (uint64_t& secret : secrets_) secret = random.next();
    uint64_t buckets = 1;
    while (buckets * kSlots < 2 * uint64_t{most_flows}) buckets *= 2;
    mask_ = buckets - 1;
    capacity_ = most_flows;
    return entries_.allocate(most_flows) && buckets_.allocate(buckets);
  }

  // Where a key belongs: the bucket by the low bits, the tag by the high ones.
  uint64_t place(const FlowKey& key) const {
    const uint64_t* const words = key.words;
    const uint64_t last = words[0] ^ secrets_[0];
    uint64_t addresses = words[1] ^ secrets_[1];
    if (key.ipv6()) {
      addresses ^= multiply(words[1] ^ secrets_[2], words[2] ^ secrets_[3]) +
                   multiply(words[3] ^ secrets_[4], words[4] ^ secrets_[5]);
    }
    return multiply(addresses, last);
  }
  void prefetch_bucket(uint64_t place) const { __builtin_prefetch(&buckets_[place & mask_]); }
  void prefetch_entry(uint32_t at) const { __builtin_prefetch(&entries_[at], 1); }

  // An entry that may be the key's, or kNone: what a search would look at first.
  uint32_t first_candidate(uint64_t place) const {
    const Bucket& bucket = buckets_[place & mask_];
    const uint32_t hits = match(bucket, tag_of(place));
    return hits == 0 ? kNone : bucket.entries[__builtin_ctz(hits)];
  }
  uint32_t find(const FlowKey& key, uint64_t place) const {
    const uint16_t tag = tag_of(place);
    for (uint64_t b = place; b - place <= mask_; ++b) {
      const Bucket& bucket = buckets_[b & mask_];
      for (uint32_t hits = match(bucket, tag); hits != 0; hits &= hits - 1) {
        const uint32_t at = bucket.entries[__builtin_ctz(hits)];
        if (key.same(entries_[at].key)) return at;
      }
      if (bucket.passed == 0) break;
    }
    return kNone;
  }

  bool full() const { return size_ == capacity_; }
  uint32_t size() const { return size_; }
  uint32_t capacity() const { return capacity_; }
  // All entries ever used are below.
  uint32_t end() const { return end_; }
  FlowEntry& operator[](uint32_t at) const { return entries_[at]; }

  // The table must not be full, and not have the key.
  uint32_t add(const FlowKey& key, uint64_t place) {
    uint32_t at = free_;
    if (at == kNone) {
      at = end_;
      end_ = at + 1;
    } else {
      free_ = entries_[at].next_free;
    }
    size_ = size_ + 1;
    FlowEntry& entry = entries_[at];
    entry.key[0] = key.words[0];
    entry.key[1] = key.words[1];
    for (int w = 2; w < 5; ++w) entry.key[w] = key.ipv6() ? key.words[w] : 0;
    const uint16_t no_tag = 0;
    for (uint64_t b = place;; ++b) {
      Bucket& bucket = buckets_[b & mask_];
      const uint32_t room = match(bucket, no_tag);
      if (room == 0) {
        ++bucket.passed;
        continue;
      }
      const auto slot = static_cast<uint32_t>(__builtin_ctz(room));
      bucket.tags[slot] = tag_of(place);
      bucket.entries[slot] = at;
      return at;
    }
  }

  void remove(uint32_t at) {
    FlowEntry& entry = entries_[at];
    FlowKey key;
    std::memcpy(key.words, entry.key, sizeof key.words);
    const uint64_t place = this->place(key);
    for (uint64_t b = place;; ++b) {
      Bucket& bucket = buckets_[b & mask_];
      uint32_t hits = match(bucket, tag_of(place));
      while (hits != 0 && bucket.entries[__builtin_ctz(hits)] != at) hits &= hits - 1;
      if (hits == 0) {
        --bucket.passed;
        continue;
      }
      bucket.tags[__builtin_ctz(hits)] = 0;
      break;
    }
    std::memset(entry.key, 0, sizeof entry.key);
    entry.state = 0;
    entry.next_free = free_;
    free_ = at;
    size_ = size_ - 1;
  }

 private:
  static constexpr uint32_t kSlots = 8;

  struct alignas(kCacheLineBytes) Bucket {
    uint16_t tags[kSlots];  // 0: no entry
    uint32_t entries[kSlots];
    uint32_t passed;  // entries that would be here, or before, but are behind
  };

  static uint64_t multiply(uint64_t a, uint64_t b) {
    __extension__ using Product = unsigned __int128;
    const Product product = static_cast<Product>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }
  static uint16_t tag_of(uint64_t place) {
    const auto tag = static_cast<uint16_t>(place >> 48);
    return tag == 0 ? 1 : tag;
  }
  // Bit i: slot i has the tag.
  static uint32_t match(const Bucket& bucket, uint16_t tag) {
#if defined(__SSE2__)
    const __m128i tags = _mm_load_si128(reinterpret_cast<const __m128i*>(bucket.tags));
    const __m128i equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(static_cast<int16_t>(tag)));
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())));
#else
    uint32_t hits = 0;
    for (uint32_t i = 0; i < kSlots; ++i) hits |= uint32_t{bucket.tags[i] == tag} << i;
    return hits;
#endif
  }

  LargeArray<FlowEntry> entries_;
  LargeArray<Bucket> buckets_;
  uint64_t mask_ = 0;
  uint64_t secrets_[6] = {};
  uint32_t capacity_ = 0;
  Field<uint32_t> size_{};
  Field<uint32_t> end_{};
  uint32_t free_ = kNone;
};

}  // namespace e2
