// SPDX-License-Identifier: BSD-3-Clause
// The pcapng half of CaptureReader.
#include <algorithm>

#include "ports/pcap_file.h"

namespace e2 {
namespace {

constexpr uint64_t kNsPerSecond = 1000000000;
constexpr uint32_t kSectionBlock = 0x0a0d0d0a;
constexpr uint32_t kInterfaceBlock = 1;
constexpr uint32_t kOldPacketBlock = 2;
constexpr uint32_t kSimplePacketBlock = 3;
constexpr uint32_t kEnhancedPacketBlock = 6;
constexpr uint32_t kByteOrderMagic = 0x1a2b3c4d;
constexpr uint32_t kBlockOverheadBytes = 12;
constexpr uint16_t kOptionEnd = 0;
constexpr uint16_t kOptionResolution = 9;
constexpr uint16_t kOptionOffset = 14;
constexpr uint8_t kMicrosecondResolution = 6;

// Units of 10^-n (or 2^-n with the top bit set) seconds into nanoseconds.
uint64_t to_ns(uint64_t time, uint8_t resolution) {
  const uint32_t exponent = resolution & 0x7f;
  if (resolution & 0x80) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Wide>(time) * kNsPerSecond) >> exponent);
  }
  for (uint32_t i = exponent; i < 9; ++i) time *= 10;
  for (uint32_t i = 9; i < exponent && time != 0; ++i) time /= 10;
  return time;
}

}  // namespace

ReadResult CaptureReader::next_block(CaptureRecord& record) {
  while (true) {
    record_offset_ = offset_;
    if (!ensure(8)) {
      if (ended()) return ReadResult::kEnd;
      return fail_cut("the file ends inside the header of this block", record_offset_);
    }
    const uint32_t type = load32(0);
    if (type == kSectionBlock) {  // it reads the same in both byte orders and sets the order anew
      if (!ensure(kBlockOverheadBytes)) {
        return fail_cut("the file ends inside this section header", record_offset_);
      }
      swapped_ = false;
      if (load32(8) != kByteOrderMagic) swapped_ = true;
      if (load32(8) != kByteOrderMagic) {
        return fail("this section header has no byte-order magic", record_offset_);
      }
    }
    const uint32_t total = load32(4);
    if (total < kBlockOverheadBytes || total % 4 != 0) {
      return fail("the length of this block is not a multiple of 4 of at least 12", record_offset_);
    }
    block_total_ = total;
    consume(8);
    bool good = true;
    switch (type) {
      case kSectionBlock:
        good = read_section(total);
        break;
      case kInterfaceBlock:
        good = read_interface(total);
        break;
      case kOldPacketBlock:
      case kSimplePacketBlock:
      case kEnhancedPacketBlock:
        return read_packet_block(type, total, record) ? ReadResult::kPacket : ReadResult::kError;
      default:
        good = finish_block(total - kBlockOverheadBytes);
        break;
    }
    if (!good) return ReadResult::kError;
  }
}

// Skips the rest of a block's body and checks that its length is repeated at the end.
bool CaptureReader::finish_block(uint64_t rest) {
  if (!take(nullptr, rest) || !ensure(4)) {
    fail_cut("the file ends inside this block", record_offset_);
    return false;
  }
  if (load32(0) != block_total_) {
    fail("the two lengths of this block differ", record_offset_);
    return false;
  }
  consume(4);
  return true;
}

bool CaptureReader::read_section(uint32_t total) {
  constexpr uint32_t kFixedBytes = 16;
  if (total < kBlockOverheadBytes + kFixedBytes) {
    fail("this section header is shorter than 28 bytes", record_offset_);
    return false;
  }
  if (!ensure(kFixedBytes)) {
    fail_cut("the file ends inside this section header", record_offset_);
    return false;
  }
  if (load16(4) != 1) {
    fail("the pcapng version of this section is not 1.x", record_offset_);
    return false;
  }
  consume(kFixedBytes);
  interfaces_.clear();
  return finish_block(total - kBlockOverheadBytes - kFixedBytes);
}

bool CaptureReader::read_interface(uint32_t total) {
  constexpr uint32_t kFixedBytes = 8;
  const auto cut = [this] {
    fail_cut("the file ends inside this interface description", record_offset_);
    return false;
  };
  if (total < kBlockOverheadBytes + kFixedBytes) {
    fail("this interface description is shorter than 20 bytes", record_offset_);
    return false;
  }
  if (interfaces_.size() == kMaxInterfaces) {
    fail("this section has more than 4096 interfaces", record_offset_);
    return false;
  }
  if (!ensure(kFixedBytes)) return cut();
  Interface interface{load16(0), load32(4), kMicrosecondResolution, 0};
  consume(kFixedBytes);
  uint32_t left = total - kBlockOverheadBytes - kFixedBytes;
  while (left >= 4) {
    if (!ensure(4)) return cut();
    const uint16_t code = load16(0), length = load16(2);
    consume(4);
    left -= 4;
    if (code == kOptionEnd) break;
    const uint32_t padded = (length + 3U) & ~3U;
    if (padded > left) {
      fail("an option of this interface description reaches past its end", record_offset_);
      return false;
    }
    if ((code == kOptionResolution && length == 1) || (code == kOptionOffset && length == 8)) {
      if (!ensure(padded)) return cut();
      if (code == kOptionResolution) {
        interface.resolution = *peek();
      } else {
        const uint64_t high = load32(swapped_ ? 0 : 4), low = load32(swapped_ ? 4 : 0);
        interface.offset_s = static_cast<int64_t>(high << 32 | low);
      }
    }
    if (!take(nullptr, padded)) return cut();
    left -= padded;
  }
  interfaces_.push_back(interface);
  return finish_block(left);
}

bool CaptureReader::read_packet_block(uint32_t type, uint32_t total, CaptureRecord& record) {
  const bool simple = type == kSimplePacketBlock;
  const uint32_t fixed = simple ? 4 : 20;
  const uint32_t body = total - kBlockOverheadBytes;
  if (body < fixed) {
    fail("this packet block is too short for its own header", record_offset_);
    return false;
  }
  if (!ensure(fixed)) {
    fail_cut("the file ends inside the header of this packet", record_offset_);
    return false;
  }
  const uint32_t index = simple ? 0 : type == kOldPacketBlock ? load16(0) : load32(0);
  if (index >= interfaces_.size()) {
    fail("this packet names an interface that the section does not describe", record_offset_);
    return false;
  }
  const Interface& interface = interfaces_[index];
  record.link_type = interface.link_type;
  if (simple) {
    record.time_ns = 0;
    record.wire_len = load32(0);
    record.captured_len = record.wire_len;
    if (interface.snaplen != 0) {
      record.captured_len = std::min(record.captured_len, interface.snaplen);
    }
  } else {
    const uint64_t time = static_cast<uint64_t>(load32(4)) << 32 | load32(8);
    record.time_ns = to_ns(time, interface.resolution) +
                     static_cast<uint64_t>(interface.offset_s) * kNsPerSecond;
    record.captured_len = load32(12);
    record.wire_len = load32(16);
  }
  if (record.captured_len > body - fixed) {
    fail("this packet is longer than its block", record_offset_);
    return false;
  }
  consume(fixed);
  data_left_ = record.captured_len;
  tail_left_ = body - fixed - record.captured_len;
  has_data_ = true;
  return true;
}

}  // namespace e2
