// SPDX-License-Identifier: BSD-3-Clause
// Internet checksums (RFC 1071): of any bytes, and of IPv4 headers. Those of segments, which need
// to know the headers before them, are in headers.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace e2 {

// One's complement sums of 32-bit words as they lie in memory: such sums commute with byte swaps,
// so that only their end, ones_fold(), has an order. Every piece but the last must have an even
// length.
inline uint64_t ones_word(const uint8_t* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}
inline uint64_t ones_add_short(uint64_t sum, const uint8_t* bytes, size_t len) {
  size_t rest = len;
  for (; rest >= 32; rest -= 32, bytes += 32) {
    uint64_t odd = 0;  // two chains of additions instead of one
    for (uint32_t i = 0; i < 32; i += 8) {
      sum += ones_word(bytes + i);
      odd += ones_word(bytes + i + 4);
    }
    sum += odd;
  }
  for (; rest >= 8; rest -= 8, bytes += 8) sum += ones_word(bytes) + ones_word(bytes + 4);
  if ((rest & 4) != 0) {
    sum += ones_word(bytes);
    bytes += 4;
  }
  if ((rest & 2) != 0) {
    uint16_t word;
    std::memcpy(&word, bytes, sizeof word);
    sum += word;
    bytes += 2;
  }
  return (rest & 1) != 0 ? sum + *bytes : sum;
}
// Of any length; by vectors as wide as the CPU has.
uint64_t ones_of_many(const uint8_t* bytes, size_t len);
// From here on a call is worth its while.
constexpr size_t kManyBytes = 256;
inline uint64_t ones_add_bytes(uint64_t sum, const uint8_t* bytes, size_t len) {
  if (len >= kManyBytes) return sum + ones_of_many(bytes, len);
  return ones_add_short(sum, bytes, len);
}
// The same of one piece by words of 8 bytes: half the work, but it stalls on bytes that several
// smaller stores have just written. The result is far from overflow.
inline uint64_t ones_of_long(const uint8_t* bytes, size_t len) {
  if (len >= kManyBytes) return ones_of_many(bytes, len);
  uint64_t sum = 0;
  size_t rest = len;
  for (; rest >= 8; rest -= 8, bytes += 8) {
    uint64_t word;
    std::memcpy(&word, bytes, sizeof word);
    sum += __builtin_add_overflow(sum, word, &sum) ? 1 : 0;
  }
  return ones_add_short((sum >> 32) + (sum & 0xffffffff), bytes, rest & 7);
}
// In host order.
inline uint16_t ones_fold(uint64_t sum) {
  sum += sum << 32 | sum >> 32;
  auto half = static_cast<uint32_t>(sum >> 32);
  half += half << 16 | half >> 16;
  return __builtin_bswap16(static_cast<uint16_t>(half >> 16));
}

// The Internet checksum in two steps. checksum_add sums big-endian 16-bit words; every piece but
// the last must have an even length. checksum_fold gives the complement, ready for store_be16. Over
// a region that includes its own right checksum it gives 0.
inline uint32_t checksum_add(const void* data, size_t len, uint32_t sum = 0) {
  return sum + ones_fold(ones_add_bytes(0, static_cast<const uint8_t*>(data), len));
}
inline uint16_t checksum_fold(uint32_t sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

// What belongs in the checksum field of an IPv4 header of `bytes` bytes (20..60), for store_be16;
// what the field holds now does not matter.
inline uint16_t ipv4_checksum(const uint8_t* ip, uint32_t bytes) {
  uint16_t ttl_and_proto;
  std::memcpy(&ttl_and_proto, ip + 8, sizeof ttl_and_proto);
  uint64_t sum =
      ones_word(ip) + ones_word(ip + 4) + ttl_and_proto + ones_word(ip + 12) + ones_word(ip + 16);
  if (bytes > 20) sum = ones_add_bytes(sum, ip + 20, bytes - 20);
  return static_cast<uint16_t>(~ones_fold(sum));
}

}  // namespace e2
