// SPDX-License-Identifier: BSD-3-Clause
// The deflate half of GzipSource (RFC 1951): blocks, Huffman codes, and matches.
#include <algorithm>
#include <cstring>

#include "ports/inflate.h"

namespace e2 {
namespace {

constexpr uint32_t kEndOfBlock = 256;
constexpr uint32_t kLengthSymbols = 29;
constexpr uint32_t kDistanceSymbols = 30;
constexpr uint16_t kLengthBase[kLengthSymbols] = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                                  15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                                  67, 83, 99, 115, 131, 163, 195, 227, 258};
constexpr uint8_t kLengthExtra[kLengthSymbols] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                  2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
constexpr uint16_t kDistanceBase[kDistanceSymbols] = {
    1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
    193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
constexpr uint8_t kDistanceExtra[kDistanceSymbols] = {0, 0, 0,  0,  1,  1,  2,  2,  3,  3,
                                                      4, 4, 5,  5,  6,  6,  7,  7,  8,  8,
                                                      9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
constexpr uint8_t kCodeLengthOrder[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                          11, 4,  12, 3, 13, 2, 14, 1, 15};

}  // namespace

GzipSource::Shape GzipSource::Code::build(const uint8_t* lengths, uint32_t symbols) {
  count.fill(0);
  fast.fill(0);
  for (uint32_t i = 0; i < symbols; ++i) ++count[lengths[i]];
  count[0] = 0;
  int left = 1;  // codes of the current length that no shorter code has taken
  for (uint32_t len = 1; len <= kMaxCodeBits; ++len) {
    left = left * 2 - count[len];
    if (left < 0) return Shape::kOversubscribed;
  }
  uint32_t next_code[kMaxCodeBits + 2] = {};
  uint16_t next_index[kMaxCodeBits + 2] = {};
  for (uint32_t len = 1; len <= kMaxCodeBits; ++len) {
    next_code[len + 1] = (next_code[len] + count[len]) << 1;
    next_index[len + 1] = static_cast<uint16_t>(next_index[len] + count[len]);
  }
  for (uint32_t i = 0; i < symbols; ++i) {
    const uint32_t len = lengths[i];
    if (len == 0) continue;
    symbol[next_index[len]++] = static_cast<uint16_t>(i);
    const uint32_t code = next_code[len]++;
    if (len > kFastBits) continue;
    uint32_t reversed = 0;  // codes arrive with their first bit lowest
    for (uint32_t bit = 0; bit < len; ++bit) reversed |= ((code >> bit) & 1) << (len - 1 - bit);
    for (uint32_t at = reversed; at < fast.size(); at += 1U << len) {
      fast[at] = static_cast<uint16_t>(i << 4 | len);
    }
  }
  return left == 0 ? Shape::kComplete : Shape::kIncomplete;
}

bool GzipSource::read_block_header() {
  if (last_block_) {
    state_ = State::kTrailer;
    return true;
  }
  uint32_t last = 0, kind = 0;
  if (!take_bits(1, last) || !take_bits(2, kind)) return false;
  last_block_ = last != 0;
  if (kind == 1) return use_fixed_codes();
  if (kind == 2) return read_dynamic_codes();
  if (kind == 3) return fail("the gzip data has a block of an unknown kind");
  uint32_t padding = 0, length = 0, complement = 0;
  if (!take_bits(bit_count_ & 7, padding)) return false;
  if (!take_bits(16, length) || !take_bits(16, complement)) return false;
  if ((length ^ complement) != 0xffff) return fail("a stored gzip block has a damaged length");
  stored_left_ = length;
  state_ = State::kStored;
  return true;
}

bool GzipSource::use_fixed_codes() {
  uint8_t lengths[kMaxSymbols];
  for (uint32_t i = 0; i < kMaxSymbols; ++i) {
    lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
  }
  literal_code_.build(lengths, kMaxSymbols);
  std::fill_n(lengths, kDistanceSymbols, uint8_t{5});
  distance_code_.build(lengths, kDistanceSymbols);
  state_ = State::kCompressed;
  return true;
}

bool GzipSource::read_dynamic_codes() {
  uint32_t literals = 0, distances = 0, code_lengths = 0;
  if (!take_bits(5, literals) || !take_bits(5, distances) || !take_bits(4, code_lengths)) {
    return false;
  }
  literals += 257;
  distances += 1;
  code_lengths += 4;
  if (literals > 286 || distances > kDistanceSymbols) {
    return fail("a gzip block declares too many symbols");
  }
  uint8_t lengths[286 + kDistanceSymbols] = {};
  for (uint32_t i = 0; i < code_lengths; ++i) {
    uint32_t value = 0;
    if (!take_bits(3, value)) return false;
    lengths[kCodeLengthOrder[i]] = static_cast<uint8_t>(value);
  }
  if (literal_code_.build(lengths, 19) != Shape::kComplete) {
    return fail("a gzip block has a bad code for its code lengths");
  }
  const uint32_t total = literals + distances;
  for (uint32_t at = 0; at < total;) {
    uint32_t symbol = 0;
    if (!decode(literal_code_, symbol)) return false;
    if (symbol < 16) {
      lengths[at++] = static_cast<uint8_t>(symbol);
      continue;
    }
    uint32_t more = 0;
    uint8_t value = 0;
    if (symbol == 16) {
      if (at == 0) return fail("a gzip block repeats a code length before the first one");
      value = lengths[at - 1];
    }
    if (!take_bits(symbol == 16 ? 2 : symbol == 17 ? 3 : 7, more)) return false;
    more += symbol == 18 ? 11 : 3;
    if (at + more > total) return fail("a gzip block has too many code lengths");
    std::fill_n(lengths + at, more, value);
    at += more;
  }
  if (lengths[kEndOfBlock] == 0) return fail("a gzip block has no code for its end");
  // RFC 1951 lets a code be incomplete only where it has a single symbol.
  const auto usable = [](const Code& code, Shape shape, const uint8_t* of, uint32_t symbols) {
    if (shape != Shape::kIncomplete) return shape == Shape::kComplete;
    const auto used = symbols - std::count(of, of + symbols, uint8_t{0});
    return used == code.count[1];
  };
  Shape shape = literal_code_.build(lengths, literals);
  if (!usable(literal_code_, shape, lengths, literals)) {
    return fail("a gzip block has a bad code for its literals");
  }
  shape = distance_code_.build(lengths + literals, distances);
  if (!usable(distance_code_, shape, lengths + literals, distances)) {
    return fail("a gzip block has a bad code for its distances");
  }
  state_ = State::kCompressed;
  return true;
}

bool GzipSource::copy_stored() {
  while (stored_left_ > 0 && unread() < kOutputGoal) {
    if (bit_count_ >= 8) {
      uint32_t byte = 0;
      take_bits(8, byte);
      output_at(produced_++) = static_cast<uint8_t>(byte);
      --stored_left_;
      continue;
    }
    if (!fill_input()) return fail("the gzip data is cut short");
    const size_t start = produced_ % kOutputBytes;
    const size_t n = std::min({static_cast<size_t>(stored_left_), input_len_ - input_pos_,
                               kOutputBytes - start, static_cast<size_t>(kOutputGoal - unread())});
    std::memcpy(&output_[start], &input_[input_pos_], n);
    input_pos_ += n;
    produced_ += n;
    stored_left_ -= static_cast<uint32_t>(n);
  }
  if (stored_left_ == 0) state_ = State::kBlock;
  return true;
}

bool GzipSource::inflate_block() {
  while (unread() < kOutputGoal) {
    uint32_t symbol = 0;
    if (!decode(literal_code_, symbol)) return false;
    if (symbol < kEndOfBlock) {
      output_at(produced_++) = static_cast<uint8_t>(symbol);
      continue;
    }
    if (symbol == kEndOfBlock) {
      state_ = State::kBlock;
      return true;
    }
    symbol -= kEndOfBlock + 1;
    if (symbol >= kLengthSymbols) return fail("the gzip data has an unknown length symbol");
    uint32_t length = 0, distance = 0, distance_symbol = 0;
    if (!take_bits(kLengthExtra[symbol], length)) return false;
    length += kLengthBase[symbol];
    if (!decode(distance_code_, distance_symbol)) return false;
    if (!take_bits(kDistanceExtra[distance_symbol], distance)) return false;
    distance += kDistanceBase[distance_symbol];
    if (distance > produced_ - member_start_) {
      return fail("the gzip data refers to bytes before its start");
    }
    for (; length > 0; --length, ++produced_) {
      output_at(produced_) = output_at(produced_ - distance);
    }
  }
  return true;
}

}  // namespace e2
