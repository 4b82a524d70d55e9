// SPDX-License-Identifier: BSD-3-Clause
// Longest prefix match: Ipv4Routes (DIR-24-8) and Ipv6Routes (a hash table per prefix length).
//
// IPv4 prefixes are 1 bit long or more; what a packet without a route does is the caller's affair.
// Lookups neither allocate nor lock; changes run beside them in a Live<> (host/live_table.h) only.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "modules/key_table.h"

namespace e2 {

// One entry per /24, and one block of 256 entries for each /24 with longer prefixes inside. An
// entry is 0, or the length and gate of the longest prefix that covers it, or a block's number.
// The top table takes 64 MB of address space, of which untouched pages cost nothing.
class Ipv4Routes {
 public:
  Status init() {
    void* memory = mmap(nullptr, kTopBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      return Status::error(ENOMEM, "no memory for the IPv4 routes (64 MB)");
    }
    top_.reset(static_cast<uint32_t*>(memory));
    return {};
  }

  // The gate of the longest prefix that holds the address; false without one.
  bool find(uint32_t address, Gate& gate) const {
    uint32_t entry = top_[address >> 8];
    if ((entry & kBlockFlag) != 0) entry = blocks_[(entry & ~kBlockFlag) * 256 + (address & 255)];
    gate = static_cast<Gate>(entry);
    return entry != 0;
  }
  void prefetch(uint32_t address) const { __builtin_prefetch(&top_[address >> 8]); }

  bool has(uint32_t prefix, uint32_t length) const { return rules_.count(id(prefix, length)) != 0; }
  size_t size() const { return rules_.size(); }

  // Adds a rule or replaces its gate.
  void add(uint32_t prefix, uint32_t length, Gate gate) {
    const bool fresh = rules_.insert_or_assign(id(prefix, length), gate).second;
    if (length > kTopBits && fresh) ++long_rules_[open_block(prefix >> 8)];
    paint(prefix, length, entry_of(length, gate), length);
  }

  // False when there is no such rule.
  bool erase(uint32_t prefix, uint32_t length) {
    if (rules_.erase(id(prefix, length)) == 0) return false;
    repaint(prefix, length);
    if (length > kTopBits) close_block(prefix >> 8);
    return true;
  }

  void clear() {
    // Gives the memory back; it reads as zeros from now on.
    if (madvise(top_.get(), kTopBytes, MADV_DONTNEED) != 0) {
      std::fill_n(top_.get(), 1u << kTopBits, 0);
    }
    blocks_.clear();
    long_rules_.clear();
    free_blocks_.clear();
    rules_.clear();
  }

 private:
  static constexpr uint32_t kTopBits = 24;
  static constexpr size_t kTopBytes = sizeof(uint32_t) << kTopBits;
  static constexpr uint32_t kBlockFlag = 1u << 31;

  struct Unmap {
    void operator()(uint32_t* table) const { munmap(table, kTopBytes); }
  };

  static uint64_t id(uint32_t prefix, uint32_t length) {
    return static_cast<uint64_t>(prefix) << 8 | length;
  }
  static uint32_t entry_of(uint32_t length, Gate gate) { return length << 16 | gate; }
  static uint32_t length_of(uint32_t entry) { return entry >> 16; }

  // Writes `entry` over every entry under the prefix that is not of a prefix longer than `limit`.
  void paint(uint32_t prefix, uint32_t length, uint32_t entry, uint32_t limit) {
    if (length > kTopBits) {
      const uint32_t block = top_[prefix >> 8] & ~kBlockFlag;
      paint_range(&blocks_[block * 256 + (prefix & 255)], 1u << (32 - length), entry, limit);
      return;
    }
    uint32_t* first = &top_[prefix >> 8];
    const uint32_t count = 1u << (kTopBits - length);
    for (uint32_t i = 0; i < count; ++i) {
      if ((first[i] & kBlockFlag) != 0) {
        paint_range(&blocks_[size_t{first[i] & ~kBlockFlag} * 256], 256, entry, limit);
      } else if (length_of(first[i]) <= limit) {
        first[i] = entry;
      }
    }
  }

  static void paint_range(uint32_t* first, uint32_t count, uint32_t entry, uint32_t limit) {
    for (uint32_t i = 0; i < count; ++i) {
      if (length_of(first[i]) <= limit) first[i] = entry;
    }
  }

  // Gives what a removed rule covered back to the longest shorter prefix.
  void repaint(uint32_t prefix, uint32_t length) {
    uint32_t entry = 0;
    for (uint32_t shorter = length - 1; shorter > 0 && entry == 0; --shorter) {
      const auto it = rules_.find(id(prefix & (~0u << (32 - shorter)), shorter));
      if (it != rules_.end()) entry = entry_of(shorter, it->second);
    }
    paint(prefix, length, entry, length);
  }

  uint32_t open_block(uint32_t at) {
    if ((top_[at] & kBlockFlag) != 0) return top_[at] & ~kBlockFlag;
    uint32_t block = static_cast<uint32_t>(long_rules_.size());
    if (!free_blocks_.empty()) {
      block = free_blocks_.back();
      free_blocks_.pop_back();
    } else {
      blocks_.resize(blocks_.size() + 256);
      long_rules_.push_back(0);
    }
    std::fill_n(&blocks_[size_t{block} * 256], 256, top_[at]);
    top_[at] = kBlockFlag | block;
    return block;
  }

  // Counts a long prefix less; the last one takes its block along, whose entries are all the same.
  void close_block(uint32_t at) {
    const uint32_t block = top_[at] & ~kBlockFlag;
    if (--long_rules_[block] != 0) return;
    top_[at] = blocks_[size_t{block} * 256];
    free_blocks_.push_back(block);
  }

  std::unique_ptr<uint32_t[], Unmap> top_;
  std::vector<uint32_t> blocks_;
  std::vector<uint32_t> long_rules_;  // prefixes longer than /24 in each block
  std::vector<uint32_t> free_blocks_;
  std::unordered_map<uint64_t, Gate> rules_;
};

// Prefixes by length, longest first.
class Ipv6Routes {
 public:
  // The first 16 bytes of a key, in network order; the rest is not used.
  static MatchKey masked(const MatchKey& address, uint32_t length) {
    MatchKey key;
    uint8_t* bytes = key.bytes();
    std::memcpy(bytes, address.bytes(), 16);
    for (uint32_t i = 0; i < 16; ++i) {
      const uint32_t kept = length > 8 * i ? length - 8 * i : 0;
      if (kept < 8) bytes[i] &= static_cast<uint8_t>(0xff00 >> kept);
    }
    return key;
  }

  bool has(const MatchKey& prefix, uint32_t length) const {
    for (const Length& at : lengths_) {
      if (at.length == length) return at.table.find(prefix.words) != nullptr;
    }
    return false;
  }
  size_t size() const { return size_; }

  // Adds a rule or replaces its value: a gate, where find_batch is used.
  void add(const MatchKey& prefix, uint32_t length, uint64_t value) {
    size_t at = 0;
    while (at < lengths_.size() && lengths_[at].length > length) ++at;
    if (at == lengths_.size() || lengths_[at].length != length) {
      MatchKey ones;
      std::memset(ones.words, 0xff, sizeof ones.words);
      lengths_.insert(lengths_.begin() + static_cast<std::ptrdiff_t>(at),
                      Length{length, masked(ones, length), KeyTable(2, 1)});
    }
    bool created = false;
    *lengths_[at].table.insert(prefix.words, created) = value;
    size_ += created;
  }

  bool erase(const MatchKey& prefix, uint32_t length) {
    for (auto it = lengths_.begin(); it != lengths_.end(); ++it) {
      if (it->length != length) continue;
      if (!it->table.erase(prefix.words)) return false;
      --size_;
      if (it->table.size() == 0) lengths_.erase(it);
      return true;
    }
    return false;
  }

  void clear() {
    lengths_.clear();
    size_ = 0;
  }

  // The value of the longest prefix that holds the address; nullptr without one.
  const uint64_t* find(const MatchKey& address) const {
    for (const Length& at : lengths_) {
      const uint64_t key[2] = {address.words[0] & at.mask.words[0],
                               address.words[1] & at.mask.words[1]};
      const uint64_t* const found = at.table.find(key);
      if (found != nullptr) return found;
    }
    return nullptr;
  }

  // Sets the gate of each address that has a route. An address is the first two words of a key.
  void find_batch(const KeyBatch& addresses, uint32_t count, Gate* gates) const {
    KeyBatch keys;
    const uint64_t* found[kMaxBatch];
    uint8_t open[kMaxBatch];
    for (uint32_t i = 0; i < count; ++i) open[i] = static_cast<uint8_t>(i);
    for (const Length& at : lengths_) {
      for (uint32_t w = 0; w < 2; ++w) {
        for (uint32_t i = 0; i < count; ++i) {
          keys.words[w][i] = addresses.words[w][open[i]] & at.mask.words[w];
        }
        keys.pad(count, w);
      }
      at.table.find_batch(keys, count, found);
      uint32_t kept = 0;
      for (uint32_t i = 0; i < count; ++i) {
        if (found[i] != nullptr) gates[open[i]] = static_cast<Gate>(*found[i]);
        open[kept] = open[i];
        kept += found[i] == nullptr;
      }
      count = kept;
      if (count == 0) return;
    }
  }

 private:
  struct Length {
    uint32_t length;
    MatchKey mask;
    KeyTable table;
  };
  std::vector<Length> lengths_;
  size_t size_ = 0;
};

}  // namespace e2
