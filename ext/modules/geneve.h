// SPDX-License-Identifier: BSD-3-Clause
// The tunnel between servers: Geneve (RFC 8926) over UDP. The VNI is the id of an edge, and each
// configured metadata attribute travels as one option:
//
// | bytes | of an option                                                                |
// |-------|-----------------------------------------------------------------------------|
// | 0..1  | class 0xffe2, ours among the experimental ones (0xff00..0xffff)             |
// | 2     | the attribute's type, 0..127; 0x80 on top where the receiver must know it   |
// | 3     | length of the value in words of 4 bytes                                     |
// | 4..   | the attribute as it lies in metadata, then zeros up to a multiple of 4      |
//
// Both ends must be given the same types and sizes; their order does not matter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "host/args.h"
#include "host/headers.h"
#include "host/packet.h"
#include "modules/field_value.h"

namespace e2 {

constexpr uint16_t kGenevePort = 6081;
constexpr uint32_t kGeneveBytes = 8;
constexpr uint32_t kInnerEthernetBytes = 14;
constexpr uint16_t kEtherBridging = 0x6558;  // the protocol of Ethernet frames in Geneve
// Bits of the first word of a Geneve header.
constexpr uint32_t kVersionBits = 0xc0000000;
constexpr uint32_t kControlFlag = 0x00800000;
constexpr uint32_t kCriticalFlag = 0x00400000;  // a critical option follows
constexpr uint32_t kMaxVni = 0xffffff;
constexpr uint32_t kOptionClass = 0xffe2;
constexpr uint32_t kOptionHeadBytes = 4;
constexpr uint32_t kCriticalOption = 0x80;
constexpr uint32_t kMaxOptionType = 0x7f;
constexpr size_t kMaxTunnelOptions = 16;

// One attribute that travels as an option.
struct TunnelOption {
  std::string attr;
  uint32_t size = 0;    // of the attribute
  uint32_t padded = 0;  // of the option's value
  uint32_t offset = 0;  // of the option behind the first one's start
  uint32_t head = 0;    // its first word, host order, without kCriticalOption
  bool critical = false;
};

// How long all of them are, with their heads.
inline uint32_t option_bytes(const std::vector<TunnelOption>& options) {
  if (options.empty()) return 0;
  return options.back().offset + kOptionHeadBytes + options.back().padded;
}

// Reads a list of messages TunnelOption.
inline Status read_tunnel_options(const Args::List& list, std::vector<TunnelOption>& options) {
  if (list.size() > kMaxTunnelOptions) {
    return Status::invalid("'options' has " + std::to_string(list.size()) +
                           " attributes; at most 16 are possible");
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const Args& args = list[i];
    const std::string where = "'options' item " + std::to_string(i);
    const uint64_t size = args["size"].as_uint();
    const uint64_t type = args["type"].as_uint();
    TunnelOption option;
    option.attr = args["attr_name"].as_string();
    option.critical = args["critical"].as_bool();
    if (option.attr.empty()) return Status::invalid(where + ": 'attr_name' is missing");
    if (size < 1 || size > kMaxAttrBytes) {
      return Status::invalid(where + " ('" + option.attr + "'): 'size' must be within 1..32 bytes");
    }
    if (type > kMaxOptionType) {
      return Status::invalid(where + " ('" + option.attr + "'): 'type' " + std::to_string(type) +
                             " must be within 0..127");
    }
    option.size = static_cast<uint32_t>(size);
    option.padded = (option.size + 3) / 4 * 4;
    option.offset = option_bytes(options);
    option.head = kOptionClass << 16 | static_cast<uint32_t>(type) << 8 | option.padded / 4;
    for (const TunnelOption& other : options) {
      if ((other.head ^ option.head) >> 8 == 0) {
        return Status::invalid(where + ": 'type' " + std::to_string(type) + " is that of '" +
                               other.attr + "'; each attribute needs its own");
      }
      if (other.attr == option.attr) {
        return Status::invalid(where + ": attribute '" + option.attr + "' is in the list twice");
      }
    }
    options.push_back(std::move(option));
  }
  return {};
}

// Puts the attributes of a packet's options back, as the receiver has them configured.
class OptionReader {
 public:
  enum Result : uint8_t { kRead, kBad, kUnknownCritical };

  // `place` is the attribute's offset in metadata.
  void add(const TunnelOption& option, int place) {
    options_[count_++] = {place, option.size, option.offset, option.head};
    bytes_ = option.offset + kOptionHeadBytes + option.padded;
    words_ = words_ && option.size == 4 && place >= 0;
  }

  // `bytes`, a multiple of 4, says how long all options at `from` are.
  Result read(Packet& packet, const uint8_t* from, uint32_t bytes) const {
    return read_expected(packet, from, bytes) ? kRead : read_any(packet, from, bytes);
  }

 private:
  // Of an option's head: class, type and length; the rest is the critical bit and reserved.
  static constexpr uint32_t kHeadBits = 0xffff7f1f;
  static constexpr uint32_t kLengthBits = 0x1f;

  struct Option {
    int place;
    uint32_t size;
    uint32_t offset;
    uint32_t head;
  };

  static void restore(Packet& packet, const uint8_t* value, const Option& option) {
    if (option.place >= 0) copy_small(packet.metadata(option.place), value, option.size);
  }

  // All configured options and no others, in order; false, with some attributes written, for any
  // other list.
  bool read_expected(Packet& packet, const uint8_t* from, uint32_t bytes) const {
    if (bytes != bytes_) return false;
    if (words_) {
      for (uint32_t i = 0; i < count_; ++i) {
        const uint8_t* const at = from + size_t{i} * 8;
        if ((load_be32(at) & kHeadBits) != options_[i].head) return false;
        std::memcpy(packet.metadata(options_[i].place), at + kOptionHeadBytes, 4);
      }
      return true;
    }
    for (uint32_t i = 0; i < count_; ++i) {
      const uint8_t* const at = from + options_[i].offset;
      if ((load_be32(at) & kHeadBits) != options_[i].head) return false;
      restore(packet, at + kOptionHeadBytes, options_[i]);
    }
    return true;
  }

  [[gnu::noinline]] Result read_any(Packet& packet, const uint8_t* from, uint32_t bytes) const {
    constexpr uint8_t kNothing[kMaxAttrBytes] = {};
    for (uint32_t i = 0; i < count_; ++i) restore(packet, kNothing, options_[i]);
    uint32_t seen = 0;  // bit by option
    for (uint32_t at = 0; at < bytes;) {
      const uint32_t head = load_be32(from + at);
      const uint32_t end = at + kOptionHeadBytes + (head & kLengthBits) * 4;
      if (end > bytes) return kBad;
      uint32_t i = 0;
      while (i < count_ && ((head & kHeadBits) ^ options_[i].head) >> 8 != 0) ++i;
      if (i < count_) {
        const bool same_length = ((head ^ options_[i].head) & kLengthBits) == 0;
        if (!same_length || (seen >> i & 1) != 0) return kBad;
        seen |= 1u << i;
        restore(packet, from + at + kOptionHeadBytes, options_[i]);
      } else if ((head & kCriticalOption << 8) != 0) {
        return kUnknownCritical;
      }
      at = end;
    }
    return kRead;
  }

  Option options_[kMaxTunnelOptions];
  uint32_t count_ = 0;
  uint32_t bytes_ = 0;
  bool words_ = true;  // all attributes have a place and 4 bytes, as most have
};

}  // namespace e2
