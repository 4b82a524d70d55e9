// SPDX-License-Identifier: BSD-3-Clause
// ReturnTable: whose an encrypted endpoint is, for packets that a provider's NAT sends back to it.
//
// PrefixMatchEncrypt writes the sources of outbound flows down, PrefixMatchDecrypt looks up where
// an inbound packet belongs; any number of workers may do both at a time. Nobody waits: who finds a
// place being written goes on without it.
//
//   bucket    8 marks in a cache line: 40 bits of the encrypted address, a version, a time
//   flow      in a line of its own, beside each mark
//
// A flow is known by the last 96 bits of its encrypted address, a PRF of it: prefixes have at most
// 31. So it is found whatever prefixes a NAT has for it, as rules changed since. It may be in
// either of two buckets; these and the marks are parts of those bits, so nothing has to be hashed,
// and nobody without the key can choose flows that meet. Known flows cost one line of reading; of
// 2^36 new ones one looks known and isn't written down. A mark is the lock of its flow's line: it
// is cleared before the line changes and set with another version afterwards (a sequence lock).
//
// A flow ends `timeout_ms` after it was noted last, which happens about every 4 s while it sends.
// Where both buckets are full, the flow that was quiet for longest makes room and is counted.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "host/module.h"
#include "modules/flow_table.h"

namespace e2 {

class ReturnTable {
 public:
  // An outbound flow in clear; addresses as their family has them, IPv4 in the first 4 bytes.
  struct Flow {
    uint8_t src[16];
    uint8_t dst[16];
    uint16_t sport;  // or the identifier of a query
    uint16_t dport;
    uint8_t protocol;
    bool ipv6;
  };
  static constexpr uint64_t kMostFlows = uint64_t{1} << 22;
  static constexpr uint64_t kDefaultFlows = 65536;
  static constexpr uint64_t kDefaultTimeoutMs = 180'000;
  static constexpr uint64_t kMostTimeoutMs = 3'600'000 * 9ULL;  // the clock goes round in 19 hours

  // False where there is no memory.
  bool init(uint64_t flows, uint64_t timeout_ms);

  // What the clock of packets says, as marks have it: about seconds, modulo 2^16.
  static uint16_t time_of(uint64_t now_ns) { return static_cast<uint16_t>(now_ns >> 30); }

  void prefetch(const uint8_t* encrypted) const {
    __builtin_prefetch(&buckets_[bucket_of(encrypted)]);
  }
  // Whether a flow needn't be noted now: it was, a short while ago.
  bool noted(const uint8_t* encrypted, uint16_t now) const {
    const uint64_t tag = tag_of(encrypted);
    for (const uint64_t at : {bucket_of(encrypted), other_bucket_of(encrypted)}) {
      for (const std::atomic<uint64_t>& place : buckets_[at].marks) {
        const uint64_t mark = place.load(std::memory_order_relaxed);
        if (mark >> kTagShift == tag) return age(mark, now) < kNoteEvery;
      }
    }
    return false;
  }
  void note(const uint8_t* encrypted, const Flow& flow, uint16_t now);

  bool find(const uint8_t* encrypted, uint8_t protocol, uint16_t now, Flow& flow) const;

  // For commands; each looks at the whole table.
  uint64_t flows(uint16_t now) const;
  uint64_t capacity() const { return capacity_; }
  uint64_t timeout_ms() const { return timeout_ms_; }
  uint64_t displaced() const { return displaced_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint32_t kWays = 8;
  static constexpr uint32_t kTagShift = 24;
  static constexpr uint32_t kVersionShift = 16;
  static constexpr uint64_t kBusy = 1;  // no tag is 0: neither free nor anybody's
  static constexpr uint16_t kNoteEvery = 4;
  static constexpr uint32_t kLineWords = 7;
  static constexpr uint32_t kPrefixBytes = 4;  // of an address, that tell nothing here

  struct alignas(kCacheLineBytes) Bucket {
    std::atomic<uint64_t> marks[kWays];  // 0: free
  };
  // Encrypted address, source, destination, and one word of ports, protocol and family.
  struct alignas(kCacheLineBytes) Line {
    std::atomic<uint64_t> words[kLineWords + 1];
  };

  static uint64_t word_of(const uint8_t* from) {
    uint64_t word;
    std::memcpy(&word, from, sizeof word);
    return word;
  }
  // All from the last 12 bytes, which are no prefix of a map.
  uint64_t bucket_of(const uint8_t* encrypted) const {
    return word_of(encrypted + 8) & bucket_mask_;
  }
  uint64_t other_bucket_of(const uint8_t* encrypted) const {
    return bucket_of(encrypted) ^ ((word_of(encrypted + 4) & bucket_mask_) | 1);
  }
  static uint64_t tag_of(const uint8_t* encrypted) {
    const uint64_t tag = word_of(encrypted + 8) >> kTagShift;
    return tag == 0 ? 1 : tag;
  }
  static uint16_t age(uint64_t mark, uint16_t now) {
    return static_cast<uint16_t>(now - static_cast<uint16_t>(mark));
  }
  bool alive(uint64_t mark, uint16_t now) const { return age(mark, now) <= timeout_; }

  LargeArray<Bucket> buckets_;
  LargeArray<Line> lines_;  // by bucket and way
  uint64_t bucket_mask_ = 0;
  uint64_t capacity_ = 0;
  uint64_t timeout_ms_ = 0;
  uint16_t timeout_ = 0;
  std::atomic<uint64_t> displaced_{0};
};

// A name's table in a host, which the first module that gives its size makes.
class SharedReturns {
 public:
  // Nullptr until a module has made it. From any thread.
  ReturnTable* get() const { return table_.load(std::memory_order_acquire); }
  // 0 stands for what the table has, or the defaults. An error where it is another table.
  Status make(uint64_t flows, uint64_t timeout_ms, const std::string& where);

  static std::shared_ptr<SharedReturns> of(const Host& host, const std::string& name);

 private:
  std::unique_ptr<ReturnTable> owned_;
  std::atomic<ReturnTable*> table_{nullptr};
};

}  // namespace e2
