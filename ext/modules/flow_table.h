// SPDX-License-Identifier: BSD-3-Clause
// FlowTable: the flows of a module, each with its gate, in memory that is taken once.
//
// An entry is half a cache line, and another half holds what packets seldom need. A bucket is half
// of one: 7 slots, each a tag and the number of an
// entry, whose tags are compared at once. A full bucket passes entries on to the next one and
// counts them, so that a search knows whether to go on. There are slots for twice the flows: few
// buckets are ever full. Places in the table depend on a secret, so that nobody can choose flows
// that meet in one bucket.
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
    if (mapped_ != nullptr) munmap(mapped_, mapped_bytes_);
  }
  LargeArray(const LargeArray&) = delete;
  LargeArray& operator=(const LargeArray&) = delete;

  bool allocate(size_t count) {
    const size_t bytes = (count * sizeof(T) + kPage - 1) / kPage * kPage;
    mapped_bytes_ = bytes + kPage;  // to begin where a page does
    void* mapped =
        mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return false;
    mapped_ = mapped;
    const auto address = reinterpret_cast<uintptr_t>(mapped);
    data_ = reinterpret_cast<T*>(static_cast<uint8_t*>(mapped) + (kPage - address % kPage) % kPage);
    (void)madvise(data_, bytes, MADV_HUGEPAGE);
    std::memset(static_cast<void*>(data_), 0, count * sizeof(T));  // now, and not packet by packet
    return true;
  }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  static constexpr size_t kPage = size_t{2} << 20;

  void* mapped_ = nullptr;
  size_t mapped_bytes_ = 0;
  T* data_ = nullptr;
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

struct alignas(kCacheLineBytes / 2) FlowEntry {
  static constexpr uint8_t kUsed = 1;
  static constexpr uint8_t kException = 2;  // its gate is not, or need not be, that of its range
  static constexpr uint8_t kClosing = 4;    // its connection has ended
  // Its first packet is yet to come, and brings its id. It is an exception then, and of no split.
  static constexpr uint8_t kNoId = 8;

  uint64_t key[2];  // 0 where the entry is free: no key looks like that
  Field<uint64_t> used_ns;
  Field<uint16_t> gate;
  Field<uint16_t> split;  // whose exception it is: number + 1; 0: of none
  Field<uint8_t> state;
  uint8_t ends;  // bit per direction whose last packet was seen
};
static_assert(sizeof(FlowEntry) == kCacheLineBytes / 2, "two in a cache line");

class FlowTable {
 public:
  static constexpr uint32_t kNone = 0xffffffff;
  static constexpr uint32_t kMostFlows = 1u << 21;

  // False where there is no memory.
  bool init(uint32_t most_flows, uint64_t seed) {
    Random random;
    random.state ^= seed;
    for (uint64_t& secret : secrets_) secret = random.next();
    bucket_count_ = 2 * most_flows / kSlots + 1;
    capacity_ = most_flows;
    return entries_.allocate(most_flows) && rests_.allocate(most_flows) &&
           buckets_.allocate(bucket_count_);
  }

  // Where a key belongs: the bucket by the low half, the tag by the high bits.
  uint64_t place(const FlowKey& key) const {
    const uint64_t* const words = key.words;
    const uint64_t last = words[0] ^ secrets_[0];
    uint64_t addresses = words[1] ^ secrets_[1];
    if (key.ipv6()) {
      addresses ^= fold_multiply(words[1] ^ secrets_[2], words[2] ^ secrets_[3]) +
                   fold_multiply(words[3] ^ secrets_[4], words[4] ^ secrets_[5]);
    }
    return fold_multiply(addresses, last);
  }
  void prefetch_bucket(uint64_t place) const { __builtin_prefetch(&buckets_[bucket_of(place)]); }
  void prefetch_entry(const FlowKey& key, uint32_t at) const {
    __builtin_prefetch(&entries_[at], 1);
    if (key.ipv6()) __builtin_prefetch(&rests_[at]);
  }
  bool same(const FlowKey& key, uint32_t at) const {
    const uint64_t* const other = entries_[at].key;
    if (key.words[0] != other[0] || key.words[1] != other[1]) return false;
    return !key.ipv6() || std::memcmp(key.words + 2, rests_[at].key, sizeof rests_[at].key) == 0;
  }

  // An entry that may be the key's, or kNone: what a search would look at first.
  uint32_t first_candidate(uint64_t place) const {
    const Bucket& bucket = buckets_[bucket_of(place)];
    const uint32_t hits = match(bucket, tag_of(place));
    return hits == 0 ? kNone : bucket.entry(hits);
  }
  uint32_t find(const FlowKey& key, uint64_t place) const {
    const uint32_t tag = tag_of(place);
    uint32_t b = bucket_of(place);
    for (uint32_t seen = 0; seen < bucket_count_; ++seen, b = after(b)) {
      const Bucket& bucket = buckets_[b];
      for (uint32_t hits = match(bucket, tag); hits != 0; hits &= hits - 1) {
        const uint32_t at = bucket.entry(hits);
        if (same(key, at)) return at;
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
  uint32_t id(uint32_t at) const { return rests_[at].id; }
  void set_id(uint32_t at, uint32_t id) { rests_[at].id = id; }
  FlowKey key(uint32_t at) const {
    FlowKey key;
    std::memcpy(key.words, entries_[at].key, sizeof entries_[at].key);
    std::memcpy(key.words + 2, rests_[at].key, sizeof rests_[at].key);
    return key;
  }

  // The table must not be full, and not have the key.
  uint32_t add(const FlowKey& key, uint64_t place, uint32_t id) {
    uint32_t at = free_;
    if (at == kNone) {
      at = end_;
      end_ = at + 1;
    } else {
      free_ = rests_[at].next_free;
    }
    size_ = size_ + 1;
    rests_[at].id = id;
    set_key(at, key);
    link(at, place);
    return at;
  }

  // The same entry under another key, which the table must not have, unless that is to change too.
  void rekey(uint32_t at, const FlowKey& key) {
    unlink(at);
    set_key(at, key);
    link(at, place(key));
  }

  void remove(uint32_t at) {
    unlink(at);
    FlowEntry& entry = entries_[at];
    std::memset(entry.key, 0, sizeof entry.key);
    entry.state = 0;
    rests_[at].next_free = free_;
    free_ = at;
    size_ = size_ - 1;
  }

 private:
  static constexpr uint32_t kSlots = 7;
  static constexpr uint32_t kNumberBits = 21;
  static_assert(kMostFlows == 1u << kNumberBits, "each has a number");

  struct alignas(kCacheLineBytes / 2) Rest {
    uint64_t key[3];  // of IPv6
    uint32_t id;
    uint32_t next_free;
  };
  struct alignas(kCacheLineBytes / 2) Bucket {
    uint32_t slots[kSlots];  // tag << kNumberBits | entry; 0: free, for no tag is 0
    uint32_t passed;         // entries that would be here, or before, but are behind

    // Of the lowest slot in a mask.
    uint32_t entry(uint32_t hits) const {
      return slots[__builtin_ctz(hits)] & ((1u << kNumberBits) - 1);
    }
  };

  static uint32_t tag_of(uint64_t place) {
    const auto tag = static_cast<uint32_t>(place >> (32 + kNumberBits));
    return tag == 0 ? 1 : tag;
  }
  uint32_t bucket_of(uint64_t place) const {
    return static_cast<uint32_t>((place & 0xffffffff) * bucket_count_ >> 32);
  }
  uint32_t after(uint32_t bucket) const { return bucket + 1 == bucket_count_ ? 0 : bucket + 1; }
  // Bit i: slot i has the tag; with tag 0: is free.
  static uint32_t match(const Bucket& bucket, uint32_t tag) {
#if defined(__SSE2__)
    const auto* words = reinterpret_cast<const __m128i*>(&bucket);
    const __m128i wanted = _mm_set1_epi32(static_cast<int32_t>(tag));
    const __m128i low = _mm_srli_epi32(_mm_load_si128(words), kNumberBits);
    const __m128i high = _mm_srli_epi32(_mm_load_si128(words + 1), kNumberBits);
    const __m128i equal =
        _mm_packs_epi32(_mm_cmpeq_epi32(low, wanted), _mm_cmpeq_epi32(high, wanted));
    const int mask = _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128()));
    return static_cast<uint32_t>(mask) & ((1u << kSlots) - 1);
#else
    uint32_t hits = 0;
    for (uint32_t i = 0; i < kSlots; ++i) {
      hits |= uint32_t{bucket.slots[i] >> kNumberBits == tag} << i;
    }
    return hits;
#endif
  }

  void set_key(uint32_t at, const FlowKey& key) {
    FlowEntry& entry = entries_[at];
    entry.key[0] = key.words[0];
    entry.key[1] = key.words[1];
    Rest& rest = rests_[at];
    for (int w = 0; w < 3; ++w) rest.key[w] = key.ipv6() ? key.words[2 + w] : 0;
  }
  void link(uint32_t at, uint64_t place) {
    for (uint32_t b = bucket_of(place);; b = after(b)) {
      Bucket& bucket = buckets_[b];
      const uint32_t room = match(bucket, 0);
      if (room == 0) {
        ++bucket.passed;
        continue;
      }
      bucket.slots[__builtin_ctz(room)] = tag_of(place) << kNumberBits | at;
      return;
    }
  }
  void unlink(uint32_t at) {
    const uint64_t place = this->place(key(at));
    for (uint32_t b = bucket_of(place);; b = after(b)) {
      Bucket& bucket = buckets_[b];
      uint32_t hits = match(bucket, tag_of(place));
      while (hits != 0 && bucket.entry(hits) != at) hits &= hits - 1;
      if (hits == 0) {
        --bucket.passed;
        continue;
      }
      bucket.slots[__builtin_ctz(hits)] = 0;
      return;
    }
  }

  LargeArray<FlowEntry> entries_;
  LargeArray<Rest> rests_;
  LargeArray<Bucket> buckets_;
  uint32_t bucket_count_ = 0;
  uint64_t secrets_[6] = {};
  uint32_t capacity_ = 0;
  Field<uint32_t> size_{};
  Field<uint32_t> end_{};
  uint32_t free_ = kNone;
};

}  // namespace e2
