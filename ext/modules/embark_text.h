// SPDX-License-Identifier: BSD-3-Clause
// Reading and writing the uncommon part of a text (embark_wire.h): fields by type and length.
#pragma once

#include <cstdint>
#include <cstring>

#include "modules/embark_wire.h"

namespace e2 {

// Appends fields; `full` once one had no room.
class ExtraWriter {
 public:
  ExtraWriter(uint8_t* text, uint32_t at) : text_(text), at_(at) {}

  // Room for a field of `bytes`, or nullptr.
  uint8_t* add(Extra type, uint32_t bytes) {
    if (at_ + 2 + bytes > kMaxText) {
      full_ = true;
      return nullptr;
    }
    text_[at_] = static_cast<uint8_t>(type);
    text_[at_ + 1] = static_cast<uint8_t>(bytes);
    uint8_t* const to = text_ + at_ + 2;
    at_ += 2 + bytes;
    return to;
  }
  void add(Extra type, const uint8_t* from, uint32_t bytes) {
    if (uint8_t* const to = add(type, bytes)) std::memcpy(to, from, bytes);
  }

  uint32_t at() const { return at_; }
  bool full() const { return full_; }

 private:
  uint8_t* text_;
  uint32_t at_;
  bool full_ = false;
};

// What a text had of each.
struct Extras {
  struct Bytes {
    const uint8_t* from = nullptr;
    uint32_t size = 0;
  };
  Bytes vlan_tags;
  Bytes ipv4_options;
  Bytes ipv6_extensions;  // behind the number of the first
  uint16_t ipv4_checksum = 0;
  uint16_t ipv4_fragment = 0;
  bool has_fragment = false;
};

// False where they make no sense: whoever wrote them knows another version of this.
inline bool read_extras(const uint8_t* text, uint32_t at, uint32_t end, Extras& extras) {
  while (at < end && text[at] != static_cast<uint8_t>(Extra::kEnd)) {
    if (at + 2 > end || at + 2 + text[at + 1] > end) return false;
    const Extras::Bytes bytes = {text + at + 2, text[at + 1]};
    switch (static_cast<Extra>(text[at])) {
      case Extra::kVlanTags:
        if (bytes.size % 4 != 0) return false;
        extras.vlan_tags = bytes;
        break;
      case Extra::kIpv4Options:
        if (bytes.size % 4 != 0 || bytes.size > 40) return false;
        extras.ipv4_options = bytes;
        break;
      case Extra::kIpv6Extensions:
        if (bytes.size < 1 || bytes.size % 4 != 1) return false;
        extras.ipv6_extensions = bytes;
        break;
      case Extra::kIpv4Checksum:
        if (bytes.size != 2) return false;
        extras.ipv4_checksum = load_be16(bytes.from);
        break;
      case Extra::kIpv4Fragment:
        if (bytes.size != 2) return false;
        extras.ipv4_fragment = load_be16(bytes.from);
        extras.has_fragment = true;
        break;
      default:
        return false;
    }
    at += 2 + bytes.size;
  }
  return true;
}

}  // namespace e2
