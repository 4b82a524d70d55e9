// SPDX-License-Identifier: BSD-3-Clause
// MemoryPort: a cable from the port's output to its input, in memory.
//
// Packets sent to out queue q are received from in queue q, in order, through a bounded lock-free
// ring. It joins two workers, or two halves of a graph, and stands in for a device in tests and
// benchmarks. Packets move without a copy and keep times and metadata.
//
// Queues: as many in as out; each ring holds size_out_q packets (1024 where that is 0).
// Needs: nothing.
// Arguments: MemoryPortArg
// Threads: one worker sends to a queue and one receives from it; the two may be the same.
// Losses: what finds its ring full is left to the sender, which counts it as dropped. Packets in
// the rings when the port is closed are freed.
// Origin: original to this project.

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "engine/pool.h"  // close() has no worker whose packet cache it could use
#include "host/port.h"
#include "ports/spsc_ring.h"

namespace e2 {
namespace {

constexpr uint32_t kDefaultPackets = 1024;

class MemoryPort final : public Port {
 public:
  Status init(const PortShape& shape, const Args& args) override;
  void receive(Context& ctx, uint32_t queue, Batch& batch, uint32_t max) override;
  uint32_t send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) override;
  Status close() override;

 private:
  std::vector<std::unique_ptr<SpscRing<Packet*>>> rings_;
  std::atomic<PacketPool*> pool_{nullptr};  // where the packets in the rings belong
};

Status MemoryPort::init(const PortShape& shape, const Args&) {
  if (shape.in_queues != shape.out_queues) {
    return Status::invalid(
        "MemoryPort joins each out queue to the in queue of the same number: "
        "num_inc_q is " +
        std::to_string(shape.in_queues) + " and num_out_q is " + std::to_string(shape.out_queues) +
        ", make them equal");
  }
  const uint32_t packets = shape.out_queue_packets ? shape.out_queue_packets : kDefaultPackets;
  for (uint32_t q = 0; q < shape.out_queues; ++q) {
    rings_.push_back(std::make_unique<SpscRing<Packet*>>(packets));
  }
  return {};
}

void MemoryPort::receive(Context&, uint32_t queue, Batch& batch, uint32_t max) {
  const uint32_t room = std::min(max, kMaxBatch - batch.size);
  batch.size += rings_[queue]->pop(batch.packets + batch.size, room);
}

uint32_t MemoryPort::send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) {
  if (pool_.load(std::memory_order_relaxed) != ctx.pool) {
    pool_.store(ctx.pool, std::memory_order_relaxed);
  }
  return rings_[queue]->push(packets, count);
}

Status MemoryPort::close() {
  Context ctx;
  ctx.pool = pool_.load(std::memory_order_relaxed);
  if (ctx.pool != nullptr) {
    PoolCache cache;
    ctx.pool_cache = &cache;
    for (auto& ring : rings_) {
      Batch batch;
      while ((batch.size = ring->pop(batch.packets, kMaxBatch)) > 0) ctx.free(batch);
    }
    ctx.pool->flush(cache);
  }
  rings_.clear();
  return {};
}

const PortRegistration kRegistered{
    {"MemoryPort", "memory_port", "hands what is sent to it back, through a ring in memory",
     "MemoryPortArg", [] { return std::make_unique<MemoryPort>(); }, kMaxQueues}};

}  // namespace
}  // namespace e2
