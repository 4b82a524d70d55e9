// SPDX-License-Identifier: BSD-3-Clause
#include "engine/pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <system_error>

#include "host/module.h"

namespace e2 {

// A full cache plus one partial chunk per worker: more empty descriptors than can ever be needed.
constexpr uint32_t kSpareChunks = kMaxWorkers * (kCachePackets / kChunkPackets + 1);

PacketPool::PacketPool(uint32_t packets, uint32_t data_bytes)
    : size_(packets), data_bytes_(data_bytes), chunks_(packets / kChunkPackets + 1 + kSpareChunks) {
  if (packets < kChunkPackets || data_bytes < 64 || data_bytes > 65536) {
    throw std::invalid_argument("a pool needs at least 64 packets of 64 to 65536 data bytes");
  }
  const uint32_t capacity = kHeadroomBytes + data_bytes;
  stride_bytes_ = static_cast<uint32_t>(sizeof(Packet) + capacity + kCacheLineBytes - 1);
  stride_bytes_ -= stride_bytes_ % kCacheLineBytes;
  // An odd number of lines spreads the headers over all cache sets.
  if (stride_bytes_ / kCacheLineBytes % 2 == 0) stride_bytes_ += kCacheLineBytes;

  region_bytes_ = static_cast<size_t>(packets) * stride_bytes_;
  memory_fd_ = memfd_create("e2-packets", MFD_CLOEXEC);
  if (memory_fd_ < 0 || ftruncate(memory_fd_, static_cast<off_t>(region_bytes_)) != 0) {
    const int code = errno;
    if (memory_fd_ >= 0) ::close(memory_fd_);
    throw std::system_error(code, std::generic_category(), "packet memory");
  }
  void* at = mmap(nullptr, region_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd_, 0);
  if (at == MAP_FAILED) {
    const int code = errno;
    ::close(memory_fd_);
    throw std::system_error(code, std::generic_category(), "packet memory");
  }
  region_ = static_cast<uint8_t*>(at);
  (void)madvise(region_, region_bytes_, MADV_HUGEPAGE);  // helps where the kernel has it

  for (uint32_t i = 0; i < chunks_.size(); ++i) {
    Chunk& chunk = chunks_[i];
    const uint32_t first = i * kChunkPackets;
    for (uint32_t j = first; j < std::min(first + kChunkPackets, packets); ++j) {
      chunk.packets[chunk.size++] =
          new (region_ + static_cast<size_t>(j) * stride_bytes_) Packet(j, capacity);
    }
    available_ += chunk.size;
    push(chunk.size != 0 ? full_ : empty_, &chunk);
  }
}

PacketPool::~PacketPool() {
  munmap(region_, region_bytes_);
  ::close(memory_fd_);
}

PacketPool::Chunk* PacketPool::pop(std::atomic<uint64_t>& head) {
  uint64_t old = head.load(std::memory_order_acquire);
  for (;;) {
    const auto index = static_cast<uint32_t>(old);
    if (index == 0) return nullptr;
    Chunk* chunk = &chunks_[index - 1];
    const uint64_t next = ((old >> 32) + 1) << 32 | chunk->next.load(std::memory_order_relaxed);
    if (head.compare_exchange_weak(old, next, std::memory_order_acquire)) return chunk;
  }
}

void PacketPool::push(std::atomic<uint64_t>& head, Chunk* chunk) {
  const auto index = static_cast<uint64_t>(chunk - chunks_.data()) + 1;
  uint64_t old = head.load(std::memory_order_relaxed);
  for (;;) {
    chunk->next.store(static_cast<uint32_t>(old), std::memory_order_relaxed);
    const uint64_t next = ((old >> 32) + 1) << 32 | index;
    if (head.compare_exchange_weak(old, next, std::memory_order_release)) return;
  }
}

uint32_t PacketPool::refill(PoolCache& cache, uint32_t want) {
  while (cache.size < want) {
    Chunk* chunk = pop(full_);
    if (chunk == nullptr) break;
    std::memcpy(cache.packets + cache.size, chunk->packets, chunk->size * sizeof(Packet*));
    cache.size += chunk->size;
    available_.fetch_sub(chunk->size, std::memory_order_relaxed);
    chunk->size = 0;
    push(empty_, chunk);
  }
  return cache.size;
}

void PacketPool::spill(PoolCache& cache, uint32_t room) {
  while (cache.size + room > kCachePackets) {
    Chunk* chunk = pop(empty_);
    const uint32_t count = std::min(cache.size, kChunkPackets);
    cache.size -= count;
    std::memcpy(chunk->packets, cache.packets + cache.size, count * sizeof(Packet*));
    chunk->size = count;
    available_.fetch_add(count, std::memory_order_relaxed);
    push(full_, chunk);
  }
}

void PacketPool::flush(PoolCache& cache) {
  while (cache.size > 0) spill(cache, kCachePackets - cache.size + 1);
}

uint32_t Context::alloc(Batch& batch, uint32_t count, uint32_t len) {
  PoolCache& cache = *pool_cache;
  if (len > pool->data_bytes()) return 0;
  if (count > kMaxBatch - batch.size) count = kMaxBatch - batch.size;
  if (cache.size < count) count = std::min(count, pool->refill(cache, count));
  cache.size -= count;
  Packet** const from = cache.packets + cache.size;
  Packet** const to = batch.packets + batch.size;
  for (uint32_t i = 0; i < count; ++i) {
    Packet* const packet = from[i];
    to[i] = packet;
    packet->start_over(len);
  }
  batch.size += count;
  return count;
}

void Context::free(Packet* const* packets, uint32_t count) {
  PoolCache& cache = *pool_cache;
  if (cache.size + count > kCachePackets) pool->spill(cache, count);
  copy_packets(cache.packets + cache.size, packets, count);
  cache.size += count;
}

}  // namespace e2
