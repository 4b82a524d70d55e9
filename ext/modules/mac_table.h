// SPDX-License-Identifier: BSD-3-Clause
// MacTable: gates by MAC address, one 64-bit word for both.
//
// Open addressing with linear probing over twice as many words as there may be entries; a word has
// the address as it lies in memory below and the gate above, and 0 is empty. The place of an
// address is the upper end of a product, so that consecutive addresses go to different lines.
// Lookups neither allocate nor lock; changes run beside them in a Live<> (host/live_table.h) only.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "host/batch.h"
#include "host/module.h"
#include "host/status.h"

namespace e2 {

class MacTable {
 public:
  static constexpr uint64_t kAddressMask = (1ULL << 48) - 1;

  // Room for `entries`, a power of two.
  Status init(uint64_t entries) {
    capacity_ = entries;
    shift_ = 63;
    while ((1ULL << (64 - shift_)) < 2 * entries) --shift_;
    // Pages that nothing was written to cost nothing.
    words_.reset(static_cast<uint64_t*>(std::calloc(2 * entries, sizeof(uint64_t))));
    if (words_ != nullptr) return {};
    return Status::error(ENOMEM,
                         "no memory for a table of " + std::to_string(entries) + " entries");
  }

  // The first 8 bytes of a frame as they lie in memory; those behind the address don't count.
  uint64_t place(uint64_t frame) const { return ((frame << 16) * kFactor) >> shift_; }
  void prefetch(uint64_t place) const { __builtin_prefetch(&words_[place]); }

  // The gate, or `fallback`.
  Gate find(uint64_t frame, uint64_t place, Gate fallback) const {
    const uint64_t* const words = words_.get();
    const uint64_t mask = 2 * capacity_ - 1;
    uint64_t word = words[place];
    while (((word ^ frame) & kAddressMask) != 0 || word == 0) {
      if (word == 0) return fallback;
      place = (place + 1) & mask;
      word = words[place];
    }
    return static_cast<Gate>((word >> 48) - 1);
  }

  bool has(uint64_t address) const { return words_[slot(address)] != 0; }
  uint64_t size() const { return size_; }
  uint64_t capacity() const { return capacity_; }

  // The address must be new, and the table not full. A gate is below 0xffff.
  void add(uint64_t address, Gate gate) {
    words_[slot(address)] = address | (uint64_t{gate} + 1) << 48;
    ++size_;
  }

  // The address must be there.
  void erase(uint64_t address) {
    const uint64_t mask = 2 * capacity_ - 1;
    uint64_t gap = slot(address);
    // Close the gap: an entry moves up unless its own start lies behind the gap.
    for (uint64_t at = (gap + 1) & mask; words_[at] != 0; at = (at + 1) & mask) {
      const uint64_t home = place(words_[at] & kAddressMask);
      if (((at - home) & mask) < ((at - gap) & mask)) continue;
      words_[gap] = words_[at];
      gap = at;
    }
    words_[gap] = 0;
    --size_;
  }

 private:
  struct Free {
    void operator()(uint64_t* words) const { std::free(words); }
  };
  static constexpr uint64_t kFactor = 0x9e3779b97f4a7c15ULL;

  // Where the address is, or else the empty word where it would go.
  uint64_t slot(uint64_t address) const {
    const uint64_t mask = 2 * capacity_ - 1;
    uint64_t at = place(address);
    while (words_[at] != 0 && ((words_[at] ^ address) & kAddressMask) != 0) at = (at + 1) & mask;
    return at;
  }

  std::unique_ptr<uint64_t[], Free> words_;
  uint64_t capacity_ = 0;
  uint64_t size_ = 0;
  uint32_t shift_ = 63;
};

}  // namespace e2
