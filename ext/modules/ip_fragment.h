// SPDX-License-Identifier: BSD-3-Clause
// Ipv4Pieces: how an IPv4 packet that is too long is cut into fragments (RFC 791, section 3.2).
//
// The first piece has the header that the packet had, the others one with those options only that
// say that they are to be copied. All keep the identification. What is cut may be a fragment
// itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "host/headers.h"

namespace e2 {

constexpr uint32_t kMaxIpv4Header = 60;
constexpr uint32_t kMaxDatagram = 0xffff;
constexpr uint16_t kDontFragment = 0x4000;
constexpr uint16_t kMoreFragments = 0x2000;
constexpr uint16_t kOffsetBits = 0x1fff;

class Ipv4Pieces {
 public:
  // Of a packet of `total` bytes, longer than `mtu`, which is 68 or more. False where it can't be
  // cut: an option has no length that can be right, or it is a fragment that no datagram can have.
  bool plan(const uint8_t* ip, uint32_t header, uint32_t total, uint32_t mtu) {
    std::memcpy(first_, ip, header);
    header_ = header;
    payload_ = total - header;
    field_ = load_be16(ip + 6);
    const bool more = (field_ & kMoreFragments) != 0;
    const uint32_t end = (field_ & kOffsetBits) * 8U + payload_;
    if (end + header > kMaxDatagram || (more && payload_ % 8 != 0)) return false;
    if (!copy_options(ip, header)) return false;
    first_room_ = (mtu - header) / 8 * 8;
    room_ = (mtu - later_header_) / 8 * 8;
    const uint32_t behind = payload_ - first_room_;
    const uint32_t last_room = mtu - later_header_;
    count_ = 2 + (behind > last_room ? (behind - last_room + room_ - 1) / room_ : 0);
    return true;
  }

  uint32_t count() const { return count_; }
  uint32_t header_bytes(uint32_t i) const { return i == 0 ? header_ : later_header_; }
  // Where the payload of piece i is, from the end of the packet's header on.
  uint32_t start(uint32_t i) const { return i == 0 ? 0 : first_room_ + (i - 1) * room_; }
  uint32_t payload_bytes(uint32_t i) const {
    return (i + 1 == count_ ? payload_ : start(i + 1)) - start(i);
  }
  void write_header(uint32_t i, uint8_t* to) const {
    const uint32_t bytes = header_bytes(i);
    std::memcpy(to, i == 0 ? first_ : later_, bytes);
    store_be16(to + 2, static_cast<uint16_t>(bytes + payload_bytes(i)));
    const uint32_t more = i + 1 < count_ ? kMoreFragments : 0;
    store_be16(to + 6, static_cast<uint16_t>((field_ + start(i) / 8) | more));
    store_be16(to + 10, ipv4_checksum(to, bytes));
  }

 private:
  bool copy_options(const uint8_t* ip, uint32_t header) {
    constexpr uint8_t kEnd = 0, kNop = 1, kCopied = 0x80;
    std::memset(later_, 0, sizeof later_);
    std::memcpy(later_, ip, kIpv4Bytes);
    uint32_t to = kIpv4Bytes;
    for (uint32_t at = kIpv4Bytes; at < header && ip[at] != kEnd;) {
      const uint32_t len = ip[at] == kNop ? 1 : at + 1 < header ? ip[at + 1] : 0;
      if (len == 0 || (len == 1 && ip[at] != kNop) || at + len > header) return false;
      if ((ip[at] & kCopied) != 0) {
        std::memcpy(later_ + to, ip + at, len);
        to += len;
      }
      at += len;
    }
    later_header_ = (to + 3) / 4 * 4;
    later_[0] = static_cast<uint8_t>(0x40 | later_header_ / 4);
    return true;
  }

  uint8_t first_[kMaxIpv4Header];
  uint8_t later_[kMaxIpv4Header];
  uint32_t header_ = 0;
  uint32_t later_header_ = 0;
  uint32_t payload_ = 0;
  uint32_t first_room_ = 0;
  uint32_t room_ = 0;
  uint32_t count_ = 0;
  uint16_t field_ = 0;  // flags and offset
};

}  // namespace e2
