// SPDX-License-Identifier: BSD-3-Clause
// Store: a fixed number of items that are named by their index, with the free ones in a list.
// AgeList: some of them from the oldest to the newest.
//
// Storage is allocated once, in init; its memory is only taken as far as items are used.
#pragma once

#include <cstdint>
#include <memory>

namespace e2 {

// T has a member `next`, which links the free items. New items are not initialised.
template <typename T>
class Store {
 public:
  static constexpr uint32_t kNone = ~0U;

  void init(uint32_t count) {
    items_.reset(new T[count]);
    count_ = count;
  }
  T& operator[](uint32_t i) { return items_[i]; }
  bool full() const { return free_ == kNone && used_ == count_; }
  // It must not be full.
  uint32_t take() {
    if (free_ == kNone) return used_++;
    const uint32_t i = free_;
    free_ = items_[i].next;
    return i;
  }
  void give_back(uint32_t i) {
    items_[i].next = free_;
    free_ = i;
  }

 private:
  std::unique_ptr<T[]> items_;
  uint32_t count_ = 0;
  uint32_t used_ = 0;  // so many were ever taken
  uint32_t free_ = kNone;
};

// Items have members `older` and `newer`, which are the list's while they are in it.
class AgeList {
 public:
  static constexpr uint32_t kNone = ~0U;

  uint32_t oldest() const { return oldest_; }
  template <typename Items>
  void append(Items& items, uint32_t i) {
    items[i].older = newest_;
    items[i].newer = kNone;
    (newest_ == kNone ? oldest_ : items[newest_].newer) = i;
    newest_ = i;
  }
  template <typename Items>
  void unlink(Items& items, uint32_t i) {
    const uint32_t older = items[i].older;
    const uint32_t newer = items[i].newer;
    (older == kNone ? oldest_ : items[older].newer) = newer;
    (newer == kNone ? newest_ : items[newer].older) = older;
  }
  // Makes an item of the list its newest.
  template <typename Items>
  void renew(Items& items, uint32_t i) {
    if (i == newest_) return;
    unlink(items, i);
    append(items, i);
  }

 private:
  uint32_t oldest_ = kNone;
  uint32_t newest_ = kNone;
};

}  // namespace e2
