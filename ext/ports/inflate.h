// SPDX-License-Identifier: BSD-3-Clause
// ByteSource: a stream of bytes that is read in chunks; GzipSource: the decompressed form of one.
//
// GzipSource reads gzip files (RFC 1952: several members, all header fields, zero padding at the
// end) with deflate data (RFC 1951), and checks every member's CRC and length. Neither class
// allocates after it is constructed, so a worker may read from them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace e2 {

// Why a stream stopped early. `what` is nullptr while all is well.
struct StreamError {
  const char* what = nullptr;
  uint64_t offset = 0;  // in the bytes of the file
  int code = 0;         // errno of a failed system call; 0 for bad content
};

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Reads up to `max` bytes; 0 at the end and after an error.
  virtual size_t read(uint8_t* into, size_t max) = 0;
  // Starts again at the first byte and forgets errors; false where that is impossible.
  virtual bool rewind() = 0;
  const StreamError& error() const { return error_; }

 protected:
  StreamError error_;
};

// CRC-32 as in gzip and Ethernet; start with 0 and pass the last result on.
uint32_t crc32(uint32_t crc, const uint8_t* data, size_t len);

class GzipSource final : public ByteSource {
 public:
  explicit GzipSource(std::unique_ptr<ByteSource> compressed);
  size_t read(uint8_t* into, size_t max) override;
  bool rewind() override;

 private:
  static constexpr uint32_t kFastBits = 10;
  static constexpr uint32_t kMaxCodeBits = 15;
  static constexpr uint32_t kMaxSymbols = 288;
  static constexpr size_t kInputBytes = 64 << 10;
  static constexpr size_t kOutputBytes = 128 << 10;  // 32 KiB of history, the rest unread output
  static constexpr size_t kOutputGoal = 64 << 10;

  enum class State : uint8_t { kFirst, kNext, kBlock, kStored, kCompressed, kTrailer, kDone };
  enum class Shape : uint8_t { kComplete, kIncomplete, kOversubscribed };

  // A canonical Huffman code: a table for short codes, counts and symbols by length for all.
  struct Code {
    std::array<uint16_t, kMaxCodeBits + 1> count;
    std::array<uint16_t, kMaxSymbols> symbol;
    std::array<uint16_t, 1 << kFastBits> fast;  // symbol << 4 | length; 0 when longer
    Shape build(const uint8_t* lengths, uint32_t symbols);
  };

  void reset();
  bool fail(const char* what);
  bool fill_input();
  void refill_bits();
  bool take_bits(uint32_t count, uint32_t& value);
  bool decode(const Code& code, uint32_t& symbol);
  void produce();
  bool step();
  bool read_member_header(bool first);
  bool read_header_byte(uint32_t& crc, uint32_t& byte);
  bool read_block_header();
  bool read_dynamic_codes();
  bool use_fixed_codes();
  bool copy_stored();
  bool inflate_block();
  bool read_trailer();
  void update_crc();
  uint64_t unread() const { return produced_ - consumed_; }
  uint8_t& output_at(uint64_t position) { return output_[position % kOutputBytes]; }

  std::unique_ptr<ByteSource> compressed_;
  State state_ = State::kFirst;
  bool last_block_ = false;
  bool input_ended_ = false;
  uint32_t stored_left_ = 0;
  uint64_t bits_ = 0;
  uint32_t bit_count_ = 0;
  uint64_t input_offset_ = 0;  // file bytes handed to the input buffer so far
  size_t input_pos_ = 0;
  size_t input_len_ = 0;
  uint64_t produced_ = 0;
  uint64_t consumed_ = 0;
  uint64_t member_start_ = 0;
  uint64_t crc_done_ = 0;  // output before it is in crc_
  uint32_t crc_ = 0;
  Code literal_code_;
  Code distance_code_;
  std::array<uint8_t, kInputBytes> input_;
  std::array<uint8_t, kOutputBytes> output_;
};

}  // namespace e2
