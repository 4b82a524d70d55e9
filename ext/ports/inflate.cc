// SPDX-License-Identifier: BSD-3-Clause
#include "ports/inflate.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace e2 {
namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0xedb88320U : 0);
    table[i] = value;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

constexpr uint32_t kFlagHeaderCrc = 2;
constexpr uint32_t kFlagExtra = 4;
constexpr uint32_t kFlagName = 8;
constexpr uint32_t kFlagComment = 16;
constexpr uint32_t kFlagsReserved = 0xe0;

}  // namespace

uint32_t crc32(uint32_t crc, const uint8_t* data, size_t len) {
  crc = ~crc;
  for (size_t i = 0; i < len; ++i) crc = (crc >> 8) ^ kCrcTable[(crc ^ data[i]) & 0xff];
  return ~crc;
}

GzipSource::GzipSource(std::unique_ptr<ByteSource> compressed)
    : compressed_(std::move(compressed)) {}

void GzipSource::reset() {
  error_ = {};
  state_ = State::kFirst;
  last_block_ = input_ended_ = false;
  bits_ = 0;
  bit_count_ = 0;
  input_offset_ = 0;
  input_pos_ = input_len_ = 0;
  produced_ = consumed_ = member_start_ = crc_done_ = 0;
  crc_ = 0;
}

bool GzipSource::rewind() {
  if (!compressed_->rewind()) return false;
  reset();
  return true;
}

size_t GzipSource::read(uint8_t* into, size_t max) {
  if (unread() == 0) produce();
  const size_t start = consumed_ % kOutputBytes;
  const size_t n = std::min({static_cast<size_t>(unread()), max, kOutputBytes - start});
  std::memcpy(into, &output_[start], n);
  consumed_ += n;
  return n;
}

bool GzipSource::fail(const char* what) {
  if (error_.what == nullptr) {
    error_ = compressed_->error();
    if (error_.what == nullptr) {
      error_ = {what, input_offset_ - (input_len_ - input_pos_) - bit_count_ / 8, 0};
    }
  }
  state_ = State::kDone;
  return false;
}

bool GzipSource::fill_input() {
  if (input_pos_ < input_len_) return true;
  if (input_ended_) return false;
  input_pos_ = 0;
  input_len_ = compressed_->read(input_.data(), input_.size());
  input_offset_ += input_len_;
  input_ended_ = input_len_ == 0;
  return !input_ended_;
}

void GzipSource::refill_bits() {
  while (bit_count_ <= 56 && fill_input()) {
    bits_ |= static_cast<uint64_t>(input_[input_pos_++]) << bit_count_;
    bit_count_ += 8;
  }
}

bool GzipSource::take_bits(uint32_t count, uint32_t& value) {
  if (bit_count_ < count) refill_bits();
  if (bit_count_ < count) return fail("the gzip data is cut short");
  value = static_cast<uint32_t>(bits_ & ((uint64_t{1} << count) - 1));
  bits_ >>= count;
  bit_count_ -= count;
  return true;
}

bool GzipSource::decode(const Code& code, uint32_t& symbol) {
  if (bit_count_ < kMaxCodeBits) refill_bits();
  uint32_t length = 0;
  const uint32_t entry = code.fast[bits_ & (code.fast.size() - 1)];
  if (entry != 0) {
    length = entry & 15;
    symbol = entry >> 4;
  } else {
    uint32_t value = 0, first = 0, index = 0;
    for (uint32_t len = 1; len <= kMaxCodeBits; ++len) {
      value |= (bits_ >> (len - 1)) & 1;
      const uint32_t here = code.count[len];
      if (value < first + here) {
        length = len;
        symbol = code.symbol[index + (value - first)];
        break;
      }
      index += here;
      first = (first + here) << 1;
      value <<= 1;
    }
    if (length == 0) {
      return fail(bit_count_ < kMaxCodeBits ? "the gzip data is cut short"
                                            : "the gzip data has a bit pattern that is no code");
    }
  }
  if (length > bit_count_) return fail("the gzip data is cut short");
  bits_ >>= length;
  bit_count_ -= length;
  return true;
}

void GzipSource::produce() {
  while (state_ != State::kDone && unread() < kOutputGoal) {
    const bool going = step();
    update_crc();
    if (!going) break;
  }
}

bool GzipSource::step() {
  switch (state_) {
    case State::kFirst:
      return read_member_header(true);
    case State::kNext:
      return read_member_header(false);
    case State::kBlock:
      return read_block_header();
    case State::kStored:
      return copy_stored();
    case State::kCompressed:
      return inflate_block();
    case State::kTrailer:
      return read_trailer();
    case State::kDone:
      break;
  }
  return false;
}

void GzipSource::update_crc() {
  while (crc_done_ < produced_) {
    const size_t start = crc_done_ % kOutputBytes;
    const size_t n = std::min(static_cast<size_t>(produced_ - crc_done_), kOutputBytes - start);
    crc_ = crc32(crc_, &output_[start], n);
    crc_done_ += n;
  }
}

bool GzipSource::read_header_byte(uint32_t& crc, uint32_t& byte) {
  if (!take_bits(8, byte)) return false;
  const uint8_t one = static_cast<uint8_t>(byte);
  crc = crc32(crc, &one, 1);
  return true;
}

bool GzipSource::read_member_header(bool first) {
  uint32_t crc = 0, byte = 0;
  if (!first) {
    while (true) {  // zero bytes may pad the file after its last member
      refill_bits();
      if (bit_count_ == 0) {
        state_ = State::kDone;
        return compressed_->error().what == nullptr || fail("cannot read the file");
      }
      if ((bits_ & 0xff) != 0) break;
      if (!take_bits(8, byte)) return false;
    }
  }
  uint32_t fixed[10];
  for (uint32_t i = 0; i < 10; ++i) {
    if (!read_header_byte(crc, fixed[i])) return false;
    if ((i == 0 && fixed[0] != 0x1f) || (i == 1 && fixed[1] != 0x8b)) {
      return fail(first ? "this is not gzip data" : "there is something else after the gzip data");
    }
  }
  if (fixed[2] != 8) return fail("the gzip compression method is not deflate");
  const uint32_t flags = fixed[3];
  if (flags & kFlagsReserved) return fail("the gzip header has a reserved flag set");
  if (flags & kFlagExtra) {
    uint32_t low = 0, high = 0;
    if (!read_header_byte(crc, low) || !read_header_byte(crc, high)) return false;
    for (uint32_t left = low | high << 8; left > 0; --left) {
      if (!read_header_byte(crc, byte)) return false;
    }
  }
  for (uint32_t text : {kFlagName, kFlagComment}) {
    if (!(flags & text)) continue;
    do {
      if (!read_header_byte(crc, byte)) return false;
    } while (byte != 0);
  }
  if (flags & kFlagHeaderCrc) {
    uint32_t stored = 0;
    if (!take_bits(16, stored)) return false;
    if (stored != (crc & 0xffff)) return fail("the gzip header does not match its checksum");
  }
  member_start_ = produced_;
  crc_ = 0;
  last_block_ = false;
  state_ = State::kBlock;
  return true;
}

bool GzipSource::read_trailer() {
  update_crc();
  uint32_t padding = 0, crc = 0, length = 0;
  if (!take_bits(bit_count_ & 7, padding)) return false;
  if (!take_bits(32, crc) || !take_bits(32, length)) return false;
  if (crc != crc_) return fail("the gzip data does not match its checksum");
  if (length != static_cast<uint32_t>(produced_ - member_start_)) {
    return fail("the gzip data does not have the length it declares");
  }
  state_ = State::kNext;
  return true;
}

}  // namespace e2
