// SPDX-License-Identifier: BSD-3-Clause
// HugeArray: numbers that are written once and then looked up at random.
//
// Where whole 2 MB pages fit into it, it asks for them (madvise): a lookup then misses the TLB less
// often. A tail shorter than that stays in small pages, so nothing is rounded up.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace e2 {

template <typename T>
class HugeArray {
 public:
  HugeArray() = default;
  explicit HugeArray(const std::vector<T>& values) : bytes_(values.size() * sizeof(T)) {
    if (bytes_ == 0) return;
    mapped_ = bytes_ >= kHugePage ? bytes_ + kHugePage : bytes_;
    base_ = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    void* at = base_;
    if (bytes_ >= kHugePage) {
      size_t space = mapped_;
      std::align(kHugePage, bytes_, at, space);
      // Only a wish: without transparent huge pages all works as well.
      static_cast<void>(::madvise(at, bytes_, MADV_HUGEPAGE));
    }
    data_ = static_cast<T*>(at);
    std::memcpy(data_, values.data(), bytes_);
  }
  ~HugeArray() {
    if (base_ != nullptr) ::munmap(base_, mapped_);
  }
  HugeArray(HugeArray&& other) noexcept { swap(other); }
  HugeArray& operator=(HugeArray&& other) noexcept {
    swap(other);
    return *this;
  }
  HugeArray(const HugeArray&) = delete;
  HugeArray& operator=(const HugeArray&) = delete;

  const T* data() const { return data_; }
  const T& operator[](size_t i) const { return data_[i]; }
  size_t size() const { return bytes_ / sizeof(T); }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;

  void swap(HugeArray& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(base_, other.base_);
    std::swap(mapped_, other.mapped_);
  }

  T* data_ = nullptr;
  size_t bytes_ = 0;
  void* base_ = nullptr;
  size_t mapped_ = 0;
};

}  // namespace e2
