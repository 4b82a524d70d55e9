// SPDX-License-Identifier: BSD-3-Clause
// What NAT remembers: mappings between internal and external endpoints of one family
// (nat_families.h), and the ports they take.
//
// Storage is allocated once, in init; nothing afterwards allocates. One thread at a time may use a
// table or a set; only size() may be called beside it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "modules/checksum_change.h"
#include "modules/store.h"

namespace e2 {

enum Side : uint32_t { kInternal = 0, kExternal = 1 };

// Fixed-size storage of mappings: found by either endpoint, kept in the order of their last use.
template <typename Family>
class MappingTable {
  using Endpoint = typename Family::Endpoint;

 public:
  static constexpr uint32_t kMaxMappings = 1u << 16;
  static constexpr uint32_t kNone = 0xffffffff;

  // Later uses within this span of time are not noted: the order of the last uses is that coarse,
  // and a mapping may look idle for that much longer than it was.
  static constexpr uint64_t kUseSpanNs = 500'000'000;

  // What each packet needs comes first, within one cache line.
  struct alignas(64) Mapping {
    Endpoint endpoint[2];
    uint64_t used_ns;
    // What translating to the other side adds to the complement of a checksum (RFC 1624).
    uint16_t address_change[2];
    uint16_t port_change[2];
    uint32_t next[2];  // in the bucket of either side; next[0] also links the free list
    uint32_t older;
    uint32_t newer;
    uint32_t address;  // index of the external address
  };
  static_assert(offsetof(Mapping, older) <= 64, "one line per packet");

  void init(uint64_t seed) {
    seed_ = seed;
    mappings_.resize(kMaxMappings);
    for (uint32_t i = 0; i < kMaxMappings; ++i) {
      mappings_[i].next[0] = i + 1 < kMaxMappings ? i + 1 : kNone;
    }
    free_ = 0;
    ages_ = {};
    size_.store(0, std::memory_order_relaxed);
    for (auto& heads : heads_) heads.assign(1u << kBucketBits, kNone);
  }

  Mapping& operator[](uint32_t i) { return mappings_[i]; }
  uint32_t oldest() const { return ages_.oldest(); }
  bool full() const { return free_ == kNone; }
  uint32_t newer(uint32_t i) const { return mappings_[i].newer; }  // kNone: it is the newest
  uint32_t size() const { return size_.load(std::memory_order_relaxed); }

  uint32_t bucket(const Endpoint& endpoint) const {
    return static_cast<uint32_t>(Family::hash(endpoint, seed_) >> (64 - kBucketBits));
  }
  void prefetch_head(Side side, uint32_t bucket) const {
    __builtin_prefetch(&heads_[side][bucket]);
  }
  void prefetch_first(Side side, uint32_t bucket) const {
    const uint32_t first = heads_[side][bucket];
    if (first != kNone) __builtin_prefetch(&mappings_[first]);
  }
  uint32_t find(Side side, const Endpoint& endpoint) const {
    return find(side, bucket(endpoint), endpoint);
  }
  uint32_t find(Side side, uint32_t bucket, const Endpoint& endpoint) const {
    uint32_t i = heads_[side][bucket];
    while (i != kNone && !(mappings_[i].endpoint[side] == endpoint)) i = mappings_[i].next[side];
    return i;
  }

  // The table must not be full.
  uint32_t add(const Endpoint& internal, const Endpoint& external, uint32_t address,
               uint64_t now_ns) {
    const uint32_t i = free_;
    Mapping& mapping = mappings_[i];
    free_ = mapping.next[0];
    mapping.endpoint[kInternal] = internal;
    mapping.endpoint[kExternal] = external;
    mapping.used_ns = now_ns;
    mapping.address = address;
    note_changes(mapping);
    for (const Side side : {kInternal, kExternal}) link(i, side);
    ages_.append(mappings_, i);
    size_.store(size() + 1, std::memory_order_relaxed);
    return i;
  }

  void remove(uint32_t i) {
    for (const Side side : {kInternal, kExternal}) unlink(i, side);
    ages_.unlink(mappings_, i);
    mappings_[i].next[0] = free_;
    free_ = i;
    size_.store(size() - 1, std::memory_order_relaxed);
  }

  // The same mapping with another endpoint on that side.
  void move(uint32_t i, Side side, const Endpoint& endpoint) {
    unlink(i, side);
    mappings_[i].endpoint[side] = endpoint;
    note_changes(mappings_[i]);
    link(i, side);
  }

  void touch(uint32_t i, uint64_t now_ns) {
    if (now_ns - mappings_[i].used_ns < kUseSpanNs) return;
    mappings_[i].used_ns = now_ns;
    ages_.renew(mappings_, i);
  }

 private:
  static constexpr uint32_t kBucketBits = 17;

  static uint16_t folded(uint32_t change) {
    change = (change & 0xffff) + (change >> 16);
    return static_cast<uint16_t>((change & 0xffff) + (change >> 16));
  }
  static void note_changes(Mapping& mapping) {
    for (const Side side : {kInternal, kExternal}) {
      const Endpoint& before = mapping.endpoint[side];
      const Endpoint& after = mapping.endpoint[1 - side];
      mapping.address_change[side] = folded(Family::change(before.address(), after.address()));
      mapping.port_change[side] = folded(change16(before.port(), after.port()));
    }
  }
  void link(uint32_t i, Side side) {
    uint32_t& head = heads_[side][bucket(mappings_[i].endpoint[side])];
    mappings_[i].next[side] = head;
    head = i;
  }
  void unlink(uint32_t i, Side side) {
    uint32_t* from = &heads_[side][bucket(mappings_[i].endpoint[side])];
    while (*from != i) from = &mappings_[*from].next[side];
    *from = mappings_[i].next[side];
  }

  uint64_t seed_ = 0;
  std::vector<Mapping> mappings_;
  std::vector<uint32_t> heads_[2];
  uint32_t free_ = kNone;
  AgeList ages_;                   // by last use
  std::atomic<uint32_t> size_{0};  // one writer; descriptions read it
};

// Which ports of one address and protocol are taken.
class PortSet {
 public:
  static constexpr uint32_t kPorts = 65536;

  void take(uint32_t port) { words_[port / 64] |= 1ULL << port % 64; }
  void give_back(uint32_t port) { words_[port / 64] &= ~(1ULL << port % 64); }
  // The first free port of begin <= port < end; `end` where there is none.
  uint32_t first_free(uint32_t begin, uint32_t end) const {
    while (begin < end) {
      const uint64_t free = ~words_[begin / 64] >> begin % 64;
      if (free != 0) return std::min<uint32_t>(begin + __builtin_ctzll(free), end);
      begin = (begin / 64 + 1) * 64;
    }
    return end;
  }

 private:
  uint64_t words_[kPorts / 64] = {};
};

}  // namespace e2
