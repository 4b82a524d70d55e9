// SPDX-License-Identifier: BSD-3-Clause
// Field values and metadata access that several modules share.
//
// A value of `size` bytes is given as an integer (value_int, stored in network order) or as bytes
// (value_bin, stored as they are). The reference documents both under FieldData.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "host/args.h"
#include "host/packet.h"
#include "host/status.h"

namespace e2 {

// The largest metadata attribute of the reference.
constexpr uint32_t kMaxAttrBytes = 32;

inline bool fits_bytes(uint64_t value, uint64_t size) {
  return size >= 8 || value >> (size * 8) == 0;
}

// Writes the integer in network order; bytes beyond the eighth are zero.
inline void put_uint(uint8_t* to, uint32_t size, uint64_t value) {
  for (uint32_t i = size; i > 0; --i) {
    to[i - 1] = static_cast<uint8_t>(value);
    value >>= 8;
  }
}

// Reads value_int or value_bin of `args` into `to`; `where` names the field in error messages.
inline Status parse_value(const Args& args, uint32_t size, const std::string& where, uint8_t* to) {
  std::memset(to, 0, size);
  if (args.has("value_int")) {
    const uint64_t value = args["value_int"].as_uint();
    if (!fits_bytes(value, size)) {
      return Status::invalid(where + ": 'value_int' " + std::to_string(value) + " does not fit " +
                             std::to_string(size) + " bytes");
    }
    put_uint(to, size, value);
  } else if (args.has("value_bin")) {
    const std::string& bytes = args["value_bin"].as_string();
    if (bytes.size() != size) {
      return Status::invalid(where + ": 'value_bin' has " + std::to_string(bytes.size()) +
                             " bytes; 'size' says " + std::to_string(size));
    }
    std::memcpy(to, bytes.data(), size);
  }
  return {};
}

// Copies of at most 8 and at most 32 bytes without a call: two overlapping moves of a fixed width.
inline void copy_word(uint8_t* to, const uint8_t* from, uint32_t size) {
  if (size == 8) {
    std::memcpy(to, from, 8);
  } else if (size == 4) {
    std::memcpy(to, from, 4);
  } else if (size == 2) {
    std::memcpy(to, from, 2);
  } else if (size > 4) {
    uint32_t head;
    uint32_t tail;
    std::memcpy(&head, from, 4);
    std::memcpy(&tail, from + size - 4, 4);
    std::memcpy(to, &head, 4);
    std::memcpy(to + size - 4, &tail, 4);
  } else if (size == 3) {
    std::memcpy(to, from, 3);
  } else if (size == 1) {
    to[0] = from[0];
  }
}

inline void copy_small(uint8_t* to, const uint8_t* from, uint32_t size) {
  if (size >= 16) {
    uint8_t head[16];
    uint8_t tail[16];
    std::memcpy(head, from, 16);
    std::memcpy(tail, from + size - 16, 16);
    std::memcpy(to, head, 16);
    std::memcpy(to + size - 16, tail, 16);
  } else if (size > 8) {
    uint64_t head;
    uint64_t tail;
    std::memcpy(&head, from, 8);
    std::memcpy(&tail, from + size - 8, 8);
    std::memcpy(to, &head, 8);
    std::memcpy(to + size - 8, &tail, 8);
  } else {
    copy_word(to, from, size);
  }
}

// Calls f(size) with the size as a constant where it is a common one, so that a loop inside of f
// copies with single moves.
template <typename F>
inline void with_size(uint32_t size, F f) {
  switch (size) {
    case 1:
      return f(std::integral_constant<uint32_t, 1>());
    case 2:
      return f(std::integral_constant<uint32_t, 2>());
    case 4:
      return f(std::integral_constant<uint32_t, 4>());
    case 6:
      return f(std::integral_constant<uint32_t, 6>());
    case 8:
      return f(std::integral_constant<uint32_t, 8>());
    default:
      return f(size);
  }
}

// Attributes at an offset the host gave; an attribute without a place (offset < 0) reads as zero
// and swallows what is written to it.
inline void read_attr(const Packet& packet, int offset, void* to, size_t size) {
  if (offset < 0) {
    std::memset(to, 0, size);
  } else {
    std::memcpy(to, packet.metadata(offset), size);
  }
}
template <typename T>
inline T read_attr_as(const Packet& packet, int offset) {
  T value;
  read_attr(packet, offset, &value, sizeof value);
  return value;
}
inline void write_attr(Packet& packet, int offset, const void* from, size_t size) {
  if (offset >= 0) std::memcpy(packet.metadata(offset), from, size);
}

}  // namespace e2
