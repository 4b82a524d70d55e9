// SPDX-License-Identifier: BSD-3-Clause
// bessd's half of Module, the packets' side: batches in and out, drops, counters.
//
// bessd's batches may be twice as large as ours. A batch of ours is the beginning of one of theirs,
// as it lies in memory, so that modules work on bessd's own batch; a second half is brought to them
// on its own.
#include "host/module.h"

#include <algorithm>

#include "engine/gate_split.h"
#include "trial.h"

namespace e2 {
namespace {

using bess::PacketBatch;

constexpr int kMaxBurst = static_cast<int>(PacketBatch::kMaxBurst);

static_assert(sizeof(PacketBatch) == sizeof(void*) * (1 + PacketBatch::kMaxBurst), "one layout");
static_assert(sizeof(Batch) == sizeof(void*) * (1 + kMaxBatch), "one layout");
static_assert(offsetof(Batch, size) == 0 && offsetof(Batch, packets) == sizeof(void*),
              "one layout");

Batch& as_ours(PacketBatch* batch) { return *reinterpret_cast<Batch*>(batch); }
bool same(const Batch& ours, const PacketBatch* theirs) {
  return static_cast<const void*>(&ours) == theirs;
}
bess::Packet** as_theirs(Packet* const* packets) {
  return reinterpret_cast<bess::Packet**>(const_cast<Packet**>(packets));
}

Context contexts[kMaxWorkers];  // each one its worker's own

Context& enter(::Context* theirs, PacketBatch* given) {
  Context& ctx = contexts[theirs->wid];
  ctx.bess = theirs;
  ctx.tsc = theirs->current_tsc;
  ctx.now_ns = theirs->current_ns;
  ctx.wid = static_cast<uint32_t>(theirs->wid);
  ctx.given = given;
  return ctx;
}

}  // namespace

uint64_t clock_ns() { return tsc_to_ns(rdtsc()); }

uint32_t Context::alloc(Batch& batch, uint32_t count, uint32_t len) {
  count = std::min(count, kMaxBatch - batch.size);
  bess::Packet** const to = as_theirs(batch.end());
  if (count == 0 || !current_worker.packet_pool()->AllocBulk(to, count, len)) return 0;
  batch.size += count;
  return count;
}

void Context::free(Packet* const* packets, uint32_t count) {
  bess::Packet::Free(as_theirs(packets), count);
}

Status Module::init(e2::Host&, const Args&) { return {}; }
void Module::process(e2::Context& ctx, Batch& batch, Gate) { drop(ctx, batch, kReasonNoGate); }
TaskResult Module::run_task(e2::Context&, uint64_t) { return {true, 0, 0}; }
void Module::release(e2::Context&) {}
bool Module::leads_to(uint32_t, Gate) const { return true; }
std::vector<std::string> Module::exclusive(uint32_t, const std::vector<uint64_t>&) const {
  return {};
}

uint64_t Module::drops(uint32_t reason) const {
  uint64_t sum = 0;
  for (uint32_t w = 0; w < kMaxWorkers; ++w) sum += drops_by(w, reason);
  return sum;
}

void Module::ProcessBatch(::Context* theirs, PacketBatch* batch) {
  e2::Context& ctx = enter(theirs, batch);
  const Gate in_gate = theirs->current_igate;
  const int rest = batch->cnt() - static_cast<int>(kMaxBatch);
  Batch& ours = as_ours(batch);
  if (rest <= 0) {
    process(ctx, ours, in_gate);
  } else {
    // The pointers of the second half stay where they are; nobody looks at them there.
    Batch second;
    second.size = static_cast<uint32_t>(rest);
    copy_packets(second.packets, ours.packets + kMaxBatch, second.size);
    ours.size = kMaxBatch;
    process(ctx, ours, in_gate);
    process(ctx, second, in_gate);
  }
  if (ctx.whole != nullptr) send_whole(ctx);
}

struct task_result Module::RunTask(::Context* theirs, PacketBatch*, void* arg) {
  e2::Context& ctx = enter(theirs, nullptr);
  const TaskResult result = run_task(ctx, reinterpret_cast<uintptr_t>(arg));
  ProcessOGates(theirs);
  return {result.block, result.packets, result.bits};
}

void Module::DeInit() {
  e2::Context ctx;
  release(ctx);
}

void Module::send_whole(e2::Context& ctx) {
  PacketBatch* const batch = ctx.whole;
  ctx.whole = nullptr;
  batch->set_cnt(static_cast<int>(ctx.whole_size));
  RunChooseModule(ctx.bess, ctx.whole_gate, batch);
}

void Module::emit(e2::Context& ctx, Batch& batch, Gate gate) {
  if (batch.empty()) return;
  if (!leads_on(gate)) {
    stop_here(ctx, batch, gate);
    return;
  }
  if (same(batch, ctx.given)) {
    ctx.whole = ctx.given;
    ctx.whole_gate = gate;
    ctx.whole_size = batch.size;
    ctx.given = nullptr;
    batch.clear();
    return;
  }
  if (ctx.whole != nullptr && ctx.whole_gate == gate) {
    if (ctx.whole_size + batch.size <= PacketBatch::kMaxBurst) {
      copy_packets(as_ours(ctx.whole).packets + ctx.whole_size, batch.packets, batch.size);
      ctx.whole_size += batch.size;
      batch.clear();
      return;
    }
    send_whole(ctx);
  }
  // The first packet makes bessd find or begin a batch for this gate; the others join it there.
  ::Context* const theirs = ctx.bess;
  if (theirs->gate_with_hook_cnt + theirs->gate_without_hook_cnt >= kMaxBurst) {
    ProcessOGates(theirs);
  }
  EmitPacket(theirs, batch[0]->bess(), gate);
  PacketBatch* const to = theirs->task->get_gate_batch(ogates()[gate]);
  const uint32_t others = batch.size - 1;
  if (to->cnt() + static_cast<int>(others) <= kMaxBurst) {
    copy_packets(as_ours(to).packets + to->cnt(), batch.packets + 1, others);
    to->incr_cnt(static_cast<int>(others));
  } else {
    for (uint32_t i = 1; i < batch.size; ++i) EmitPacket(theirs, batch[i]->bess(), gate);
  }
  batch.clear();
}

void Module::emit_by_gate(e2::Context& ctx, Batch& batch, const Gate* gates) {
  split_by_gate(batch, gates, [&](Batch& part, Gate gate) { emit(ctx, part, gate); });
}

void Module::stop_here(e2::Context& ctx, Batch& batch, Gate gate) {
  if (gate < kDropBase && Trial::collects()) {
    Trial::collect(*this, gate, batch);
    ctx.free(batch);
  } else {
    drop(ctx, batch, gate >= kDropBase ? gate - kDropBase : kReasonNoGate);
  }
}

void Module::drop(e2::Context& ctx, Packet* packet, uint32_t reason) {
  ++counts_[ctx.wid].drops[reason];
  DropPacket(ctx.bess, packet->bess());
}

void Module::drop(e2::Context& ctx, Batch& batch, uint32_t reason) {
  counts_[ctx.wid].drops[reason] += batch.size;
  for (Packet* packet : batch) DropPacket(ctx.bess, packet->bess());
  batch.clear();
}

void Module::set_overloaded(bool overloaded) {
  if (overloaded_.load(std::memory_order_relaxed) == overloaded) return;
  if (overloaded_.exchange(overloaded, std::memory_order_relaxed) == overloaded) return;
  if (overloaded) {
    SignalOverload();
  } else {
    SignalUnderload();
  }
}

}  // namespace e2
