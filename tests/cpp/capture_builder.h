// SPDX-License-Identifier: BSD-3-Clause
// Makes capture files and gzip data of every kind for the tests, byte by byte.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "ports/inflate.h"

namespace capture_test {

using Bytes = std::vector<uint8_t>;

// A gzip member with every optional header field, made of stored blocks.
inline Bytes stored_gzip(const Bytes& content) {
  Bytes out = {0x1f, 0x8b, 8, 0x1f, 0, 0, 0, 0, 0, 3, 2, 0, 'x', 'y', 'n', 0, 'c', 0};
  const uint32_t header_crc = e2::crc32(0, out.data(), out.size());
  const auto put = [&out](uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
  };
  put(header_crc & 0xffff, 2);
  size_t at = 0;
  do {
    const size_t n = std::min<size_t>(content.size() - at, 60000);
    out.push_back(at + n == content.size());
    put(static_cast<uint32_t>(n), 2);
    put(~static_cast<uint32_t>(n) & 0xffff, 2);
    out.insert(out.end(), content.begin() + static_cast<std::ptrdiff_t>(at),
               content.begin() + static_cast<std::ptrdiff_t>(at + n));
    at += n;
  } while (at < content.size());
  put(e2::crc32(0, content.data(), content.size()), 4);
  put(static_cast<uint32_t>(content.size()), 4);
  return out;
}

// Builds files in either byte order.
struct Builder {
  bool big_endian = false;
  Bytes out{};
  std::vector<size_t> packet_ends{};  // where each packet is complete

  void put(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) {
      out.push_back(static_cast<uint8_t>(value >> (8 * (big_endian ? bytes - 1 - i : i))));
    }
  }
  void data(uint32_t seed, uint32_t len) {
    for (uint32_t i = 0; i < len; ++i) out.push_back(static_cast<uint8_t>(seed * 31 + i));
  }
  void block(uint32_t type, const Bytes& body) {
    const uint64_t total = body.size() + 12;
    put(type, 4);
    put(total, 4);
    out.insert(out.end(), body.begin(), body.end());
    put(total, 4);
  }
};

inline constexpr uint64_t kTimeNs = 1600000000123456789;
inline constexpr uint32_t kLengths[] = {60, 61, 62, 63, 0, 200};

inline Builder make_pcap(bool big_endian, bool nanoseconds) {
  Builder file{big_endian};
  file.put(nanoseconds ? 0xa1b23c4d : 0xa1b2c3d4, 4);
  file.put(2, 2);
  file.put(4, 2);
  file.put(0, 8);
  file.put(65535, 4);
  file.put(1, 4);
  for (uint32_t i = 0; i < std::size(kLengths); ++i) {
    file.put(kTimeNs / 1000000000, 4);
    file.put(kTimeNs % 1000000000 / (nanoseconds ? 1 : 1000), 4);
    file.put(kLengths[i], 4);
    file.put(kLengths[i] + i, 4);
    file.data(i, kLengths[i]);
    file.packet_ends.push_back(file.out.size());
  }
  return file;
}

inline Builder make_pcapng(bool big_endian) {
  Builder file{big_endian};
  Builder body{big_endian};
  body.put(0x1a2b3c4d, 4);
  body.put(1, 2);
  body.put(0, 2);
  body.put(~uint64_t{0}, 8);
  file.block(0x0a0d0d0a, body.out);
  body.out.clear();  // interface 0: microseconds
  body.put(1, 2);
  body.put(0, 2);
  body.put(0, 4);
  file.block(1, body.out);
  body.put(2, 2);  // interface 1: a name, nanoseconds, one second ahead
  body.put(3, 2);
  body.out.insert(body.out.end(), {'e', 't', 'h', 0});
  body.put(9, 2);
  body.put(1, 2);
  body.out.insert(body.out.end(), {9, 0, 0, 0});
  body.put(14, 2);
  body.put(8, 2);
  body.put(1, 8);
  body.put(0, 4);
  file.block(1, body.out);
  file.block(0x4d5a, {1, 2, 3, 4});  // unknown: to be skipped
  for (uint32_t i = 0; i < std::size(kLengths); ++i) {
    const uint32_t kind = i == 0 ? 2 : i == 1 ? 3 : 6;
    const uint64_t time = kind == 2 ? kTimeNs / 1000 : kTimeNs - 1000000000;
    const uint32_t interface = kind == 2 ? 0 : 1;
    body.out.clear();
    if (kind == 6) body.put(interface, 4);
    if (kind == 2) {
      body.put(interface, 2);
      body.put(0xffff, 2);
    }
    if (kind != 3) {
      body.put(time >> 32, 4);
      body.put(time & 0xffffffff, 4);
      body.put(kLengths[i], 4);
    }
    body.put(kLengths[i] + (kind == 3 ? 0 : i), 4);
    body.data(i, kLengths[i]);
    while (body.out.size() % 4 != 0) body.out.push_back(0);
    if (i == 5) {  // an option after the packet
      body.put(2, 2);
      body.put(4, 2);
      body.put(0, 8);
    }
    file.block(kind, body.out);
    file.packet_ends.push_back(file.out.size());
  }
  return file;
}

}  // namespace capture_test
