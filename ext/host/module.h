// SPDX-License-Identifier: BSD-3-Clause
// Module: what a packet-processing module is to its host, and what the host gives it.
//
// To write one: derive from Module, override `process` (and `run_task` for a module that makes its
// own packets), and register it with a ModuleClass:
//
//   const ModuleClass kClass = {"Bypass", "bypass", "forwards packets unchanged", ...};
//   const ModuleRegistration registered{kClass};
//
// | to do this                             | call that                                       |
// |----------------------------------------|-------------------------------------------------|
// | send a whole batch to a gate           | emit(ctx, batch, gate)                          |
// | send each packet to its own gate       | emit_by_gate(ctx, batch, gates), or             |
// |                                        | emit_each(ctx, batch, gate_of)                  |
// | drop a packet and say why              | gates[i] = drop_gate(reason), or drop(ctx, p, r)|
// | declare a drop reason                  | add_drop_reason("bad checksum") in init         |
// | read or write a metadata attribute     | add_attr(...) in init; attr_offset(id)          |
// | make packets                           | ctx.alloc(batch, n, len) in run_task            |
// | have run_task called at a time         | ctx.wake_at(ns) in run_task, each time          |
// | have run_task called soon              | wake_task(ctx) in process                       |
// | tell controllers what happened         | add_event("overload", {"queue"}) in init;       |
// |                                        | post_event(event, {queue}), from anywhere       |
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "host/args.h"
#include "host/batch.h"
#include "host/bell.h"
#include "host/event_ring.h"
#include "host/module_class.h"
#include "host/status.h"

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

class PacketPool;
struct OutGate;
struct PoolCache;

// What profiling itself takes for a batch, in cycles: in the module that gets it, and in the one
// that it comes from.
struct ProfileCost {
  uint64_t inside = 0;
  uint64_t outside = 0;
};

// What profiling found out about a module. All `_cycles` of the modules that a task runs add up to
// the task's.
struct Profile {
  uint64_t packets = 0;          // that came to the module
  uint64_t cycles = 0;           // for them, in the module itself
  uint64_t task_packets = 0;     // that its own tasks brought
  uint64_t task_cycles = 0;      // for them, in the module itself and the scheduler
  uint64_t idle_cycles = 0;      // of runs of its tasks that brought nothing
  uint64_t overhead_cycles = 0;  // for taking these times; part of none of the others
};

// What a worker lends to the modules that it runs.
struct Context {
  uint64_t tsc = 0;     // at the start of the current task round
  uint64_t now_ns = 0;  // monotonic, at the start of the current task round
  uint32_t wid = 0;     // worker id, < kMaxWorkers
  // Modules below this address of the stack are too deep: the graph has a loop without a queue.
  const void* stack_floor = nullptr;
  bool profile = false;  // account cycles to modules
  ProfileCost profile_cost;
  uint64_t child_cycles = 0;      // spent below the module that runs, while profiling
  uint64_t wake_ns = UINT64_MAX;  // see wake_at
  Random random;
  PacketPool* pool = nullptr;
  PoolCache* pool_cache = nullptr;

  // Appends up to `count` new packets of `len` undefined bytes to the batch; returns how many.
  uint32_t alloc(Batch& batch, uint32_t count, uint32_t len);
  // From a task that found nothing to do, each time: that there will be something at that time of
  // `now_ns`'s clock. A worker that sleeps wakes before.
  void wake_at(uint64_t ns) {
    if (ns < wake_ns) wake_ns = ns;
  }
  void free(Packet* const* packets, uint32_t count);
  void free(Batch& batch) {
    free(batch.packets, batch.size);
    batch.clear();
  }
};

// Counters with one writer each, so plain additions suffice; readers may see a batch in flight.
struct alignas(kCacheLineBytes) GateCount {
  uint64_t batches = 0;
  uint64_t packets = 0;
  uint64_t bytes = 0;
};

// Something that looks at the batches crossing a gate (a pcap mirror, for example).
class GateHook {
 public:
  virtual ~GateHook() = default;
  // `module` is the one whose gate it is.
  virtual Status init(const Module& module, const Args& args) = 0;
  virtual void process(Context& ctx, const Batch& batch) = 0;
  // Finishes what the hook wrote, and reports what went wrong with it. No worker is running.
  virtual Status close() { return {}; }
  // The hook's arguments.
  virtual Args describe() const { return {}; }
  // Runs one of the commands that its class lists. No worker is running.
  virtual Status command(const std::string& command, const Args& args, Args& response);
  std::string class_name;
  std::string name;
};

struct InGate {
  Module* module = nullptr;
  Gate index = 0;
  std::vector<OutGate*> sources;
  std::vector<std::unique_ptr<GateHook>> hooks;
};

// What each batch needs comes first, in one cache line.
struct alignas(kCacheLineBytes) OutGate {
  Module* next = nullptr;
  std::unique_ptr<GateCount[]> counts{new GateCount[kMaxWorkers]};
  Gate next_in = 0;  // the index of `in`
  bool count_packets = true;
  bool count_bytes = false;
  bool hooked = false;  // any hook on this gate or on `in`
  InGate* in = nullptr;
  Module* owner = nullptr;
  Gate index = 0;
  std::vector<std::unique_ptr<GateHook>> hooks;
};

class Module {
  // Beside the pointer to the virtual functions: what each batch needs is in one cache line.
  OutGate* first_out_ = nullptr;  // gate 0's, which most packets take: one load less for each batch

 public:
  Module();
  virtual ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  virtual Status init(Host& host, const Args& args);
  // Consumes every packet of the batch: emits, drops, or keeps it.
  virtual void process(Context& ctx, Batch& batch, Gate in_gate);
  // Makes packets and pushes them on; called by the scheduler for modules with tasks.
  virtual TaskResult run_task(Context& ctx, uint64_t task_arg);
  // Frees packets that the module still holds; no worker runs it any more.
  virtual void release(Context& ctx);
  virtual std::string description() const { return ""; }
  // Told before workers start: which of them run this module, in ascending order.
  virtual void placed(const std::vector<uint32_t>&) {}
  // Whether packets that `wid` brings may leave by that gate; asked only where the class splits
  // workers.
  virtual bool leads_to(uint32_t wid, Gate gate) const;
  // What else only one worker may use at a time and `wid` uses through this module, in words such
  // as "queue 0 of port 'p', outgoing"; `tasks` are the arguments of this module's tasks there.
  virtual std::vector<std::string> exclusive(uint32_t wid,
                                             const std::vector<uint64_t>& tasks) const;
  // A descriptor that becomes readable when the task may find something to do; -1: there is none,
  // and a worker that sleeps looks again within 2 ms.
  virtual int wake_fd(uint64_t /*task_arg*/) const { return -1; }

  const std::string& name() const { return name_; }
  const ModuleClass& module_class() const { return *class_; }
  const std::vector<Attribute>& attributes() const { return attributes_; }
  int attr_offset(size_t id) const { return attr_offsets_[id]; }
  const std::vector<uint64_t>& task_args() const { return task_args_; }
  const std::vector<std::string>& drop_reasons() const { return drop_reasons_; }
  const std::vector<EventType>& event_types() const { return event_types_; }
  EventRing* event_ring() const { return events_.get(); }  // nullptr where it has no events
  uint64_t drops(uint32_t reason) const;
  uint64_t drops_by(uint32_t wid, uint32_t reason) const { return counts_[wid].drops[reason]; }
  Profile profile() const;

 protected:
  size_t add_attr(std::string name, uint32_t size_bytes, Access access);
  uint32_t add_drop_reason(std::string reason);
  void add_task(uint64_t arg) { task_args_.push_back(arg); }
  // Declares a kind of event, with the names of up to kMaxEventValues values.
  uint32_t add_event(std::string kind, std::vector<std::string> values);

  // Tells whoever follows the host's events; dropped, and counted as lost, where nobody fetched the
  // last EventRing::kSlots. For what happens now and then: an event is no counter.
  void post_event(uint32_t event, std::initializer_list<uint64_t> values) {
    events_->post(clock_ns(), event, values);
  }

  // All packets go to one gate; the batch is empty afterwards. One that came with `process` must
  // not be filled anew: in bessd its packets are still in it.
  void emit(Context& ctx, Batch& batch, Gate gate = 0);
  // Packet i goes to gates[i], in order within each gate; the batch is empty afterwards. `gates`
  // has kMaxBatch entries, of which those past the end of the batch don't matter.
  void emit_by_gate(Context& ctx, Batch& batch, const Gate* gates);
  // Each packet goes to the gate that `gate_of(Packet&)` answers; it may change the packet.
  template <typename GateOf>
  void emit_each(Context& ctx, Batch& batch, GateOf gate_of) {
    Gate gates[kMaxBatch];
    if (all_leave_by_0(batch, gates, gate_of)) {
      emit(ctx, batch);
    } else {
      emit_by_gate(ctx, batch, gates);
    }
  }
  void drop(Context& ctx, Packet* packet, uint32_t reason);
  void drop(Context& ctx, Batch& batch, uint32_t reason);

  // After leaving work for this module's own task: should another worker run that and sleep, it is
  // woken.
  void wake_task(const Context& ctx) const {
    if (bell_ != nullptr && bell_->wid() != ctx.wid) bell_->ring();
  }

  // Stops the tasks that lead here, or lets them go on. Any worker may call it at any time; `init`
  // has to set `may_overload_` first.
  void set_overloaded(bool overloaded);
  bool overloaded() const { return overloaded_.load(std::memory_order_relaxed); }
  bool may_overload_ = false;

 private:
  friend class Graph;
  friend class ProfileProbe;
  friend class Worker;
  using Pressure = std::shared_ptr<std::atomic<int32_t>>;

  struct alignas(kCacheLineBytes) WorkerCount {
    uint64_t drops[kMaxDropReasons] = {};
    Profile profile;
  };

  void deliver_watched(Context& ctx, Batch& batch, OutGate& gate);
  // While profiling: a run of a task took so many cycles, of which ctx.child_cycles below.
  void note_run(const Context& ctx, uint64_t cycles, uint32_t packets);

  std::string name_;
  const ModuleClass* class_ = nullptr;
  std::vector<std::unique_ptr<OutGate>> out_gates_;
  std::vector<std::unique_ptr<InGate>> in_gates_;
  std::vector<Attribute> attributes_;
  std::vector<int> attr_offsets_;
  std::vector<uint64_t> task_args_;
  std::vector<std::string> drop_reasons_;
  std::vector<EventType> event_types_;
  std::unique_ptr<EventRing> events_;
  std::unique_ptr<WorkerCount[]> counts_;
  std::atomic<bool> overloaded_{false};
  std::vector<Pressure> upstream_;  // of the tasks that lead here
  std::shared_ptr<Bell> bell_;      // of the worker with the first task; nullptr: of none
};

// Differs where a plugin and its host were built with headers that don't fit together: the order of
// virtual functions is told by a number to be raised here, all else by sizes.
constexpr uint64_t host_layout(std::initializer_list<uint64_t> parts) {
  uint64_t mixed = 1;
  for (uint64_t part : parts) mixed = mixed * 0x9e3779b97f4a7c15ULL + part;
  return mixed;
}
constexpr uint64_t kHostVersion = 2;
constexpr uint64_t kHostLayout =
    host_layout({kHostVersion, kMaxBatch, kMetadataBytes, sizeof(Packet), sizeof(Context),
                 sizeof(Args), sizeof(Status), sizeof(Command), sizeof(ModuleClass),
                 sizeof(OutGate), sizeof(InGate), sizeof(Module), kMaxWorkers, kMaxDropReasons});

// Registers a copy of a class; a namespace-scope constant of each module's file. A plugin with a
// class whose name is taken is refused.
class ModuleRegistration {
 public:
  explicit ModuleRegistration(const ModuleClass& module_class, uint64_t layout = kHostLayout);
  ~ModuleRegistration();  // unregisters: a plugin that is unloaded takes its classes along
  ModuleRegistration(const ModuleRegistration&) = delete;
  ModuleRegistration& operator=(const ModuleRegistration&) = delete;

 private:
  std::string name_;  // empty where it was refused
};
// Every class of this host, by name.
const ModuleClass* find_module_class(const std::string& name);
std::vector<const ModuleClass*> module_classes();

}  // namespace e2
#pragma GCC visibility pop
