// SPDX-License-Identifier: BSD-3-Clause
// Module in bessd: a module of the daemon under the name and with the methods that modules know
// from ext/host/module.h, which explains them. What differs:
//
// | in bessd                                 | because                                          |
// |------------------------------------------|--------------------------------------------------|
// | what was emitted is processed once       | bessd keeps batches until the module returns     |
// | `process` has returned                   |                                                  |
// | metadata starts as whatever was there    | bessd clears no attributes                       |
// | events wait for the command get_events   | bessd has no event stream                        |
// | drops by reason: command get_drops; they | bessd counts no reasons                          |
// | are among the module's `deadends`        |                                                  |
// | there are no ports                       | PortInc and PortOut are bessd's                  |
// | nothing wakes a worker                   | bessd's never sleep                              |
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "host/args.h"
#include "host/batch.h"
#include "host/event_ring.h"
#include "host/module_class.h"
#include "host/status.h"

namespace e2 {

static_assert(kMaxWorkers == Worker::kMaxWorkers, "modules keep state per worker");
static_assert(kMaxGates == MAX_GATES, "gate numbers mean the same");
static_assert(kMaxBatch <= bess::PacketBatch::kMaxBurst, "a batch of ours fits one of theirs");

// What a worker lends to the modules that it runs.
struct Context {
  uint64_t tsc = 0;
  uint64_t now_ns = 0;  // on the clock of clock_ns()
  uint32_t wid = 0;
  Random random;

  uint32_t alloc(Batch& batch, uint32_t count, uint32_t len);
  void free(Packet* const* packets, uint32_t count);
  void free(Batch& batch) {
    free(batch.packets, batch.size);
    batch.clear();
  }
  void wake_at(uint64_t) {}

  // The adapter's own: bessd's context, and the batch that bessd gave. Where all of it leaves by
  // one gate, it goes on as it is.
  ::Context* bess = nullptr;
  bess::PacketBatch* given = nullptr;  // nullptr once it left
  bess::PacketBatch* whole = nullptr;  // what leaves by `whole_gate` when `process` has returned
  Gate whole_gate = 0;
  uint32_t whole_size = 0;
};

class Module : public ::Module {
 public:
  Module();
  ~Module() override;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  virtual Status init(e2::Host& host, const Args& args);
  virtual void process(e2::Context& ctx, Batch& batch, Gate in_gate);
  virtual TaskResult run_task(e2::Context& ctx, uint64_t task_arg);
  virtual void release(e2::Context& ctx);
  virtual std::string description() const { return ""; }
  virtual void placed(const std::vector<uint32_t>&) {}
  virtual bool leads_to(uint32_t wid, Gate gate) const;
  virtual std::vector<std::string> exclusive(uint32_t wid,
                                             const std::vector<uint64_t>& tasks) const;
  virtual int wake_fd(uint64_t /*task_arg*/) const { return -1; }

  const ModuleClass& module_class() const { return *class_; }
  const std::vector<Attribute>& attributes() const { return attributes_; }
  int attr_offset(size_t id) const {
    const int offset = ::Module::attr_offset(id);
    return offset < 0 ? kNoOffset : offset;  // bessd has three kinds of none
  }
  const std::vector<uint64_t>& task_args() const { return task_args_; }
  const std::vector<std::string>& drop_reasons() const { return drop_reasons_; }
  const std::vector<EventType>& event_types() const { return event_types_; }
  EventRing* event_ring() const { return events_.get(); }
  uint64_t drops(uint32_t reason) const;
  uint64_t drops_by(uint32_t wid, uint32_t reason) const { return counts_[wid].drops[reason]; }

  // What bessd calls.
  CommandResponse set_up(const ModuleClass& module_class, const google::protobuf::Any& arg);
  CommandResponse run_command(const e2::Command& command, const google::protobuf::Any& arg);
  void ProcessBatch(::Context* ctx, bess::PacketBatch* batch) override;
  struct task_result RunTask(::Context* ctx, bess::PacketBatch* batch, void* arg) override;
  void DeInit() override;
  int OnEvent(bess::Event event) override;
  void AddActiveWorker(int wid, const Task* task) override;
  std::string GetDesc() const override { return description(); }

 protected:
  size_t add_attr(std::string name, uint32_t size_bytes, Access access);
  uint32_t add_drop_reason(std::string reason);
  void add_task(uint64_t arg) { task_args_.push_back(arg); }
  uint32_t add_event(std::string kind, std::vector<std::string> values);
  void post_event(uint32_t event, std::initializer_list<uint64_t> values) {
    events_->post(clock_ns(), event, values);
  }

  // The batch is empty afterwards. One that came with `process` must not be filled anew: its
  // packets are still in it.
  void emit(e2::Context& ctx, Batch& batch, Gate gate = 0);
  void emit_by_gate(e2::Context& ctx, Batch& batch, const Gate* gates);
  template <typename GateOf>
  void emit_each(e2::Context& ctx, Batch& batch, GateOf gate_of) {
    Gate gates[kMaxBatch];
    if (all_leave_by_0(batch, gates, gate_of)) {
      emit(ctx, batch);
    } else {
      emit_by_gate(ctx, batch, gates);
    }
  }
  void drop(e2::Context& ctx, Packet* packet, uint32_t reason);
  void drop(e2::Context& ctx, Batch& batch, uint32_t reason);
  void wake_task(const e2::Context&) const {}

  void set_overloaded(bool overloaded);
  bool overloaded() const { return overloaded_.load(std::memory_order_relaxed); }
  bool may_overload_ = false;

 private:
  friend class Neighbours;  // the host of one module's init (neighbours.h)

  struct alignas(kCacheLineBytes) WorkerCount {
    uint64_t drops[kMaxDropReasons] = {};
  };

  bool leads_on(Gate gate) const {
    return __builtin_expect(gate < ogates().size() && ogates()[gate] != nullptr, 1);
  }
  Status declare();  // attributes, tasks and workers, to bessd
  void send_whole(e2::Context& ctx);
  void stop_here(e2::Context& ctx, Batch& batch, Gate gate);

  const ModuleClass* class_ = nullptr;
  std::vector<Attribute> attributes_;
  std::vector<uint64_t> task_args_;
  std::vector<std::string> drop_reasons_;
  std::vector<EventType> event_types_;
  std::unique_ptr<EventRing> events_;
  std::unique_ptr<WorkerCount[]> counts_;
  std::unique_ptr<class Neighbours> neighbours_;
  std::atomic<bool> overloaded_{false};
};

// Registers a copy of a class; a namespace-scope constant of each module's file.
class ModuleRegistration {
 public:
  explicit ModuleRegistration(const ModuleClass& module_class);
  ~ModuleRegistration();  // unregisters: a plugin that is unloaded takes its classes along
  ModuleRegistration(const ModuleRegistration&) = delete;
  ModuleRegistration& operator=(const ModuleRegistration&) = delete;

 private:
  const char* name_;
};

}  // namespace e2
