// SPDX-License-Identifier: BSD-3-Clause
// StreamStart: the first bytes of a byte stream, put together from pieces in any order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace e2 {

class StreamStart {
 public:
  static constexpr uint32_t kBytes = 4096;

  void clear() { pieces_ = 0; }

  // What lies beyond kBytes is left out, and so is a piece that would be the ninth separate one.
  // Where pieces overlap, the later one counts.
  void insert(uint32_t offset, const uint8_t* bytes, uint32_t len) {
    if (offset >= kBytes || len == 0) return;
    uint32_t begin = offset;
    uint32_t end = std::min(kBytes - offset, len) + offset;
    uint32_t first = 0;
    while (first < pieces_ && piece_[first].end < begin) ++first;
    uint32_t last = first;  // behind the pieces that the new one touches
    while (last < pieces_ && piece_[last].begin <= end) ++last;
    if (first == last && pieces_ == kMostPieces) return;
    std::memcpy(bytes_ + begin, bytes, end - begin);
    if (first == last) {
      std::copy_backward(piece_ + first, piece_ + pieces_, piece_ + pieces_ + 1);
      ++pieces_;
    } else {
      begin = std::min<uint32_t>(begin, piece_[first].begin);
      end = std::max<uint32_t>(end, piece_[last - 1].end);
      std::copy(piece_ + last, piece_ + pieces_, piece_ + first + 1);
      pieces_ -= last - first - 1;
    }
    piece_[first] = {static_cast<uint16_t>(begin), static_cast<uint16_t>(end)};
  }

  const char* bytes() const { return reinterpret_cast<const char*>(bytes_); }
  // How many bytes there are without a hole.
  uint32_t len() const { return pieces_ != 0 && piece_[0].begin == 0 ? piece_[0].end : 0; }

  uint32_t next;  // for a Store

 private:
  static constexpr uint32_t kMostPieces = 8;

  struct Piece {
    uint16_t begin;
    uint16_t end;
  };

  uint32_t pieces_;  // apart from each other, in ascending order
  Piece piece_[kMostPieces];
  uint8_t bytes_[kBytes];
};

}  // namespace e2
