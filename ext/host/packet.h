// SPDX-License-Identifier: BSD-3-Clause
// Packet: one fixed-size buffer of the pool, and everything a module may do to it.
//
// Layout (cache lines of 64 bytes): 1 line of header, 2 lines of metadata, 4 lines of headroom,
// then data. The buffer never moves; only `data_off` and `len` change, so encapsulation is pointer
// arithmetic. Packets are single-segment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace e2 {

constexpr uint32_t kMetadataBytes = 128;
constexpr uint32_t kHeadroomBytes = 256;
constexpr uint32_t kCacheLineBytes = 64;

class PacketPool;

class alignas(kCacheLineBytes) Packet {
 public:
  Packet(const Packet&) = delete;
  Packet& operator=(const Packet&) = delete;

  uint8_t* data() { return base() + data_off_; }
  const uint8_t* data() const { return base() + data_off_; }
  uint32_t len() const { return len_; }
  uint32_t headroom() const { return data_off_; }
  uint32_t tailroom() const { return capacity_ - data_off_ - len_; }
  uint32_t capacity() const { return capacity_; }
  uint32_t index() const { return index_; }

  // Capture or arrival time, ns since the Unix epoch; 0 where the source has none.
  uint64_t time_ns() const { return time_ns_; }
  void set_time_ns(uint64_t time_ns) { time_ns_ = time_ns; }

  // Length on the wire where a capture cut the packet short; 0 where it did not. It follows what is
  // put before the packet or taken off its front; the missing end stays missing.
  uint32_t wire_len() const { return wire_len_; }
  void set_wire_len(uint32_t bytes) { wire_len_ = bytes; }

  // Scratch space for metadata attributes; offsets come from Module::attr_offset().
  uint8_t* metadata(int offset) { return metadata_ + offset; }
  const uint8_t* metadata(int offset) const { return metadata_ + offset; }

  // Grows the packet at its front. Returns the new start, or nullptr when there is no headroom.
  uint8_t* prepend(uint32_t bytes) {
    if (bytes > data_off_) return nullptr;
    data_off_ -= bytes;
    len_ += bytes;
    if (wire_len_ != 0) wire_len_ += bytes;
    return data();
  }
  // Removes bytes at the front. Returns the new start, or nullptr when the packet is shorter.
  uint8_t* adj(uint32_t bytes) {
    if (bytes > len_) return nullptr;
    data_off_ += bytes;
    len_ -= bytes;
    if (wire_len_ != 0) wire_len_ = wire_len_ > bytes ? wire_len_ - bytes : 0;
    return data();
  }
  // Grows the packet at its end. Returns the start of the new bytes, or nullptr when full.
  uint8_t* append(uint32_t bytes) {
    if (bytes > tailroom()) return nullptr;
    uint8_t* end = data() + len_;
    len_ += bytes;
    return end;
  }
  // Removes bytes at the end; false (and no change) when the packet is shorter.
  bool trim(uint32_t bytes) {
    if (bytes > len_) return false;
    len_ -= bytes;
    return true;
  }
  // Back to an empty packet of `len` undefined bytes after the standard headroom.
  void reset(uint32_t len) {
    data_off_ = kHeadroomBytes;
    len_ = len;
  }
  // The same for a packet that is new in all respects: without times and wire length.
  void start_over(uint32_t len) {
    static_assert(offsetof(Packet, time_ns_) - offsetof(Packet, data_off_) == 16, "two moves");
    const uint32_t fresh[4] = {kHeadroomBytes, len, 0, 0};
    std::memcpy(&data_off_, fresh, sizeof fresh);
    time_ns_ = 0;
  }
  // Copies bytes, metadata and times of `from`; false when they do not fit this buffer.
  bool copy_from(const Packet& from) {
    if (from.data_off_ + from.len_ > capacity_) return false;
    data_off_ = from.data_off_;
    len_ = from.len_;
    time_ns_ = from.time_ns_;
    wire_len_ = from.wire_len_;
    std::memcpy(metadata_, from.metadata_, kMetadataBytes);
    std::memcpy(data(), from.data(), len_);
    return true;
  }

 private:
  friend class PacketPool;
  Packet(uint32_t index, uint32_t capacity) : capacity_(capacity), index_(index) {}

  uint8_t* base() { return reinterpret_cast<uint8_t*>(this) + sizeof(Packet); }
  const uint8_t* base() const { return reinterpret_cast<const uint8_t*>(this) + sizeof(Packet); }

  // What a new packet starts with lies together, for start_over().
  uint32_t data_off_ = kHeadroomBytes;
  uint32_t len_ = 0;
  uint32_t wire_len_ = 0;
  uint32_t reserved_ = 0;
  uint64_t time_ns_ = 0;
  uint32_t capacity_;  // headroom + data bytes
  uint32_t index_;     // of the buffer in its pool: how other processes name it
  alignas(kCacheLineBytes) uint8_t metadata_[kMetadataBytes];
};

static_assert(sizeof(Packet) == kCacheLineBytes + kMetadataBytes, "header and metadata");

}  // namespace e2
