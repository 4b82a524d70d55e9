// SPDX-License-Identifier: BSD-3-Clause
// PacketPool: every packet buffer of the process, in one shared-memory region.
//
// Workers allocate from a private cache (PoolCache) and exchange chunks of 64 packets with the pool
// through two lock-free stacks of chunk descriptors: one of full chunks, one of empty ones. Stack
// heads carry a tag against ABA. Buffers are named by index across processes, never by pointer.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "host/packet.h"

namespace e2 {

constexpr uint32_t kChunkPackets = 64;
constexpr uint32_t kCachePackets = 512;

struct PoolCache {
  uint32_t size = 0;
  Packet* packets[kCachePackets];
};

class PacketPool {
 public:
  // Throws std::system_error when the memory can't be had, std::invalid_argument on a bad size.
  PacketPool(uint32_t packets, uint32_t data_bytes);
  ~PacketPool();
  PacketPool(const PacketPool&) = delete;
  PacketPool& operator=(const PacketPool&) = delete;

  // Makes the cache hold at least `want` (<= 64) packets if the pool can; returns what it holds.
  uint32_t refill(PoolCache& cache, uint32_t want);
  // Makes room in the cache for `room` (<= 64) packets.
  void spill(PoolCache& cache, uint32_t room);
  // Returns everything in the cache to the pool.
  void flush(PoolCache& cache);

  uint32_t size() const { return size_; }
  uint32_t data_bytes() const { return data_bytes_; }
  uint32_t stride_bytes() const { return stride_bytes_; }
  // Packets in the pool itself, caches not counted.
  uint32_t available() const { return available_.load(std::memory_order_relaxed); }
  Packet* packet(uint32_t index) {
    return reinterpret_cast<Packet*>(region_ + static_cast<size_t>(index) * stride_bytes_);
  }
  // The stacks of chunks: how many packets they could hold, and their bytes.
  size_t store_slots() const { return chunks_.size() * kChunkPackets; }
  size_t store_bytes() const { return chunks_.size() * sizeof(Chunk); }
  int memory_fd() const { return memory_fd_; }

 private:
  struct Chunk {
    std::atomic<uint32_t> next{0};
    uint32_t size = 0;
    Packet* packets[kChunkPackets];
  };

  Chunk* pop(std::atomic<uint64_t>& head);
  void push(std::atomic<uint64_t>& head, Chunk* chunk);

  uint32_t size_;
  uint32_t data_bytes_;
  uint32_t stride_bytes_;
  size_t region_bytes_ = 0;
  int memory_fd_ = -1;
  uint8_t* region_ = nullptr;
  std::vector<Chunk> chunks_;
  alignas(kCacheLineBytes) std::atomic<uint64_t> full_{0};  // tag << 32 | index + 1
  alignas(kCacheLineBytes) std::atomic<uint64_t> empty_{0};
  alignas(kCacheLineBytes) std::atomic<uint32_t> available_{0};
};

}  // namespace e2
