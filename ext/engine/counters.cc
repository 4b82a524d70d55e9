// SPDX-License-Identifier: BSD-3-Clause
// All counters of an Engine in one call: asking module by module takes a call each, and reads each
// at another time.
#include "engine/counters.h"

#include "engine/clock.h"
#include "engine/engine.h"
#include "host/occupancy.h"

namespace e2 {
namespace {

// What BESS adds to a packet's bytes on a wire when it counts a task's bits.
constexpr uint64_t kFramingBytes = 24;

Args gate_entry(const OutGate& gate) {
  const GateCount count = total(gate);
  Args entry;
  entry.set("ogate", static_cast<uint64_t>(gate.index));
  entry.set("target", gate.next->name());
  entry.set("igate", static_cast<uint64_t>(gate.in->index));
  entry.set("packets", count.packets);
  entry.set("bytes", count.bytes);
  entry.set("counts_bytes", gate.count_bytes);
  return entry;
}

Args module_entry(const Module& module) {
  Args entry;
  entry.set("name", module.name());
  entry.set("mclass", module.module_class().name);
  Args::List gates;
  for (const auto& gate : Graph::out_gates(module)) {
    if (gate != nullptr) gates.push_back(gate_entry(*gate));
  }
  entry.set("ogates", std::move(gates));
  entry.set("drops", drop_counts(module, false));
  if (const auto* queue = dynamic_cast<const Occupancy*>(&module)) {
    entry.set("waiting", queue->waiting());
    entry.set("most_waiting", queue->most_waiting());
  }
  const Profile profile = module.profile();
  const uint64_t cycles = profile.cycles + profile.task_cycles;
  if (cycles != 0) entry.set("cycles", cycles);
  return entry;
}

Args task_entry(const TrafficClass& leaf) {
  const Usage& usage = leaf.usage();
  const uint64_t packets = usage[2];
  const uint64_t framing = packets * kFramingBytes;
  const uint64_t framed = usage[3] / 8;
  Args entry;
  entry.set("module", leaf.module->name());
  entry.set("number", static_cast<uint64_t>(leaf.task_index));
  entry.set("wid", leaf.root()->wid);
  entry.set("busy_ns", static_cast<uint64_t>(static_cast<double>(usage[1]) * 1e9 / tsc_hz()));
  entry.set("packets", packets);
  entry.set("bytes", framed > framing ? framed - framing : 0);  // some tasks count no bits
  return entry;
}

}  // namespace

GateCount total(const OutGate& gate) {
  GateCount sum;
  for (uint32_t w = 0; w < kMaxWorkers; ++w) {
    sum.batches += gate.counts[w].batches;
    sum.packets += gate.counts[w].packets;
    sum.bytes += gate.counts[w].bytes;
  }
  return sum;
}

Args drop_counts(const Module& module, bool all) {
  Args drops{Args::Map{}};
  for (uint32_t r = 0; r < module.drop_reasons().size(); ++r) {
    const uint64_t count = module.drops(r);
    if (all || count != 0) drops.set(module.drop_reasons()[r], count);
  }
  return drops;
}

Args port_counts(const PortCount (&counts)[kMaxQueues]) {
  uint64_t packets = 0;
  uint64_t dropped = 0;
  uint64_t bytes = 0;
  for (const PortCount& count : counts) {
    packets += count.packets.load(std::memory_order_relaxed);
    dropped += count.dropped.load(std::memory_order_relaxed);
    bytes += count.bytes.load(std::memory_order_relaxed);
  }
  Args args;
  args.set("packets", packets);
  args.set("dropped", dropped);
  args.set("bytes", bytes);
  return args;
}

Args Engine::counters() {
  std::lock_guard<std::mutex> lock(mutex_);
  Args all;
  all.set("time_ns", monotonic_ns());
  Args::List modules;
  for (const auto& entry : graph_.modules()) modules.push_back(module_entry(*entry.second));
  all.set("modules", std::move(modules));
  Args::List tasks;
  for (const auto& entry : tcs_) {
    if (entry.second->policy() == Policy::kLeaf) tasks.push_back(task_entry(*entry.second));
  }
  all.set("tasks", std::move(tasks));
  Args::List workers;
  for (const auto& entry : workers_) {
    Args worker;
    worker.set("wid", entry.first);
    worker.set("core", entry.second->core());
    worker.set("running", entry.second->running());
    workers.push_back(std::move(worker));
  }
  all.set("workers", std::move(workers));
  Args::List ports;
  for (const auto& entry : ports_) {
    Args port;
    port.set("name", entry.first);
    port.set("driver", entry.second->port_class->name);
    port.set("inc", port_counts(entry.second->in));
    port.set("out", port_counts(entry.second->out));
    ports.push_back(std::move(port));
  }
  all.set("ports", std::move(ports));
  return all;
}

}  // namespace e2
