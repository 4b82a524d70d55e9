// SPDX-License-Identifier: BSD-3-Clause
// Packet in bessd: one of its packet buffers under the name and with the methods that modules know
// from ext/host/packet.h.
//
// A packet of several segments looks like one that a capture cut short after its first segment:
// `wire_len` tells the whole length. Packets have no times of their own here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "host/bess.h"

namespace e2 {

constexpr uint32_t kMetadataBytes = SNBUF_METADATA;
constexpr uint32_t kHeadroomBytes = SNBUF_HEADROOM;
constexpr uint32_t kCacheLineBytes = 64;

// Has no members: it stands where a bess::Packet is.
class alignas(kCacheLineBytes) Packet {
 public:
  Packet() = delete;
  Packet(const Packet&) = delete;
  Packet& operator=(const Packet&) = delete;

  uint8_t* data() { return bess()->head_data<uint8_t*>(); }
  const uint8_t* data() const { return bess()->head_data<const uint8_t*>(); }
  uint32_t len() const { return static_cast<uint32_t>(bess()->head_len()); }
  uint32_t headroom() const { return bess()->headroom(); }
  uint32_t tailroom() const { return bess()->is_linear() != 0 ? bess()->tailroom() : 0; }
  uint32_t capacity() const { return headroom() + len() + tailroom(); }
  uint32_t index() const { return bess()->index(); }

  uint64_t time_ns() const { return 0; }
  void set_time_ns(uint64_t) {}
  uint32_t wire_len() const {
    const auto total = static_cast<uint32_t>(bess()->total_len());
    return total == len() ? 0 : total;
  }
  void set_wire_len(uint32_t) {}

  uint8_t* metadata(int offset) {
    return reinterpret_cast<uint8_t*>(bess()->metadata<uintptr_t>()) + offset;
  }
  const uint8_t* metadata(int offset) const { return bess()->metadata<const uint8_t*>() + offset; }

  uint8_t* prepend(uint32_t bytes) {
    if (bytes > headroom()) return nullptr;
    return static_cast<uint8_t*>(bess()->prepend(static_cast<uint16_t>(bytes)));
  }
  uint8_t* adj(uint32_t bytes) {
    if (bytes > len()) return nullptr;
    return static_cast<uint8_t*>(bess()->adj(static_cast<uint16_t>(bytes)));
  }
  uint8_t* append(uint32_t bytes) {
    if (bytes > tailroom()) return nullptr;
    return static_cast<uint8_t*>(bess()->append(static_cast<uint16_t>(bytes)));
  }
  bool trim(uint32_t bytes) {
    if (bytes > len()) return false;
    set_len(len() - bytes);
    return true;
  }
  void reset(uint32_t len) {
    bess()->set_data_off(static_cast<uint16_t>(kHeadroomBytes));
    set_len(len);
  }
  void start_over(uint32_t len) { reset(len); }
  bool copy_from(const Packet& from) {
    const uint32_t room = SNBUF_HEADROOM + SNBUF_DATA;
    if (from.headroom() + from.len() > room) return false;
    bess()->set_data_off(static_cast<uint16_t>(from.headroom()));
    set_len(from.len());
    std::memcpy(metadata(0), from.metadata(0), kMetadataBytes);
    std::memcpy(data(), from.data(), len());
    return true;
  }

  bess::Packet* bess() { return reinterpret_cast<bess::Packet*>(this); }
  const bess::Packet* bess() const { return reinterpret_cast<const bess::Packet*>(this); }

 private:
  // Of the first segment; what the others add to the total stays.
  void set_len(uint32_t bytes) {
    const auto others = static_cast<uint32_t>(bess()->total_len()) - len();
    bess()->set_total_len(bytes + others);
    bess()->set_data_len(static_cast<uint16_t>(bytes));
  }
};

}  // namespace e2
