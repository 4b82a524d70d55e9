// SPDX-License-Identifier: BSD-3-Clause
// PortInc: receives from every queue of a port.
//
// Family: endpoints
// Gates: in 0, out 1. One task per queue.
// Arguments: PortIncArg
// Commands:
//   set_burst  packets per run of a task
// Metadata: none.
// Drop reasons: none.
// Limits: only one worker may receive from a queue; resuming more is refused. Nothing is received
// while the port's `admin_up` is false.
// Origin: the module of this name in BESS; the code is new.
//
// QueueInc: receives from one queue of a port.
//
// Family: endpoints
// Gates: in 0, out 1. One task.
// Arguments: QueueIncArg
// Commands:
//   set_burst  packets per run of the task
// Metadata: none.
// Drop reasons: none.
// Limits: only one worker may receive from a queue; resuming more is refused. Nothing is received
// while the port's `admin_up` is false.
// Origin: the module of this name in BESS; the code is new.
//
// PortOut: sends to a port, the packets of each worker to one queue.
//
// The workers that run it take the port's queues in turn, in the order of their ids.
//
// Family: endpoints
// Gates: in 8192, out 0.
// Arguments: PortOutArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "port full"  the port did not take the packet; the port counts it as `dropped`, too
//   "port down"  the port's `admin_up` is false
// Limits: only one worker may send to a queue; resuming more is refused.
// Origin: the module of this name in BESS; the code is new.
//
// QueueOut: sends to one queue of a port.
//
// Family: endpoints
// Gates: in 1, out 0.
// Arguments: QueueOutArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "port full"  the port did not take the packet; the port counts it as `dropped`, too
//   "port down"  the port's `admin_up` is false
// Limits: only one worker may send to a queue; resuming more is refused.
// Origin: the module of this name in BESS; the code is new.
#include <atomic>

#include "host/module.h"
#include "host/port.h"

namespace e2 {
namespace {

class PortUser : public Module {
 public:
  ~PortUser() override {
    if (port_ != nullptr) --port_->users;
  }

 protected:
  std::string queue_name(uint64_t queue, const char* direction) const {
    return "queue " + std::to_string(queue) + " of port '" + port_->name + "' (" + direction + ")";
  }
  Status use_port(Host& host, const Args& args) {
    const std::string& name = args["port"].as_string();
    if (name.empty()) return Status::invalid("Field 'port' must be specified");
    Port* port = host.find_port(name);
    if (port == nullptr) return Status::error(ENODEV, "Port '" + name + "' not found");
    port_ = port;
    ++port->users;
    return {};
  }
  Status check_queue(const Args& args, uint32_t queues) const {
    const uint64_t qid = args["qid"].as_uint();
    if (qid < queues) return {};
    return Status::invalid("Port '" + port_->name + "' has no queue " + std::to_string(qid) +
                           " in that direction: it has " + std::to_string(queues));
  }
  Port* port_ = nullptr;
};

class Input : public PortUser {
 public:
  TaskResult run_task(Context& ctx, uint64_t queue) override {
    Batch batch;
    if (!port_->config.admin_up) return {true, 0, 0};
    port_->receive(ctx, static_cast<uint32_t>(queue), batch,
                   burst_.load(std::memory_order_relaxed));
    const uint32_t received = batch.size;
    if (received == 0) return {true, 0, 0};
    uint64_t bytes = 0;
    if (prefetch_) {
      for (const Packet* packet : batch) __builtin_prefetch(packet->data());
    }
    for (const Packet* packet : batch) bytes += packet->len();
    port_->in[queue].add(received, bytes);
    emit(ctx, batch);
    return {false, received, (bytes + uint64_t{received} * 24) * 8};
  }

  Status set_burst(const Args& args, Args&) {
    const uint64_t burst = args["burst"].as_uint();
    if (burst == 0 || burst > kMaxBatch) return Status::invalid("'burst' must be within 1..32");
    burst_ = static_cast<uint32_t>(burst);
    return {};
  }
  std::string description() const override { return port_->name + "/" + port_->port_class->name; }
  int wake_fd(uint64_t queue) const override {
    return port_->wake_fd(static_cast<uint32_t>(queue));
  }

  std::vector<std::string> exclusive(uint32_t, const std::vector<uint64_t>& queues) const override {
    std::vector<std::string> all;
    all.reserve(queues.size());
    for (const uint64_t queue : queues) all.push_back(queue_name(queue, "incoming"));
    return all;
  }

 protected:
  bool prefetch_ = false;

 private:
  std::atomic<uint32_t> burst_{kMaxBatch};
};

class PortInc final : public Input {
 public:
  Status init(Host& host, const Args& args) override {
    Status status = use_port(host, args);
    if (!status.ok()) return status;
    if (port_->shape.in_queues == 0) {
      return Status::error(ENODEV, "Port '" + port_->name + "' has no incoming queue");
    }
    prefetch_ = args["prefetch"].as_bool();
    for (uint32_t q = 0; q < port_->shape.in_queues; ++q) add_task(q);
    return {};
  }
};

class QueueInc final : public Input {
 public:
  Status init(Host& host, const Args& args) override {
    Status status = use_port(host, args);
    if (status.ok()) status = check_queue(args, port_->shape.in_queues);
    prefetch_ = args["prefetch"].as_bool();
    if (status.ok()) add_task(args["qid"].as_uint());
    return status;
  }
};

class Output : public PortUser {
 public:
  std::string description() const override { return port_->name + "/" + port_->port_class->name; }

 protected:
  void send(Context& ctx, Batch& batch, uint32_t queue) {
    if (!port_->config.admin_up) {
      port_->out[queue].add_dropped(batch.size);
      drop(ctx, batch, down_);
      return;
    }
    uint64_t bytes[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) bytes[i] = batch[i]->len();
    const uint32_t sent = port_->send(ctx, queue, batch.packets, batch.size);
    uint64_t sent_bytes = 0;
    for (uint32_t i = 0; i < sent; ++i) sent_bytes += bytes[i];
    port_->out[queue].add(sent, sent_bytes);
    if (sent == batch.size) return;
    port_->out[queue].add_dropped(batch.size - sent);
    for (uint32_t i = sent; i < batch.size; ++i) drop(ctx, batch[i], full_);
  }
  uint32_t full_ = add_drop_reason("port full");
  uint32_t down_ = add_drop_reason("port down");
};

class PortOut final : public Output {
 public:
  Status init(Host& host, const Args& args) override {
    Status status = use_port(host, args);
    if (status.ok() && port_->shape.out_queues == 0) {
      return Status::error(ENODEV, "Port '" + port_->name + "' has no outgoing queue");
    }
    return status;
  }
  void process(Context& ctx, Batch& batch, Gate) override { send(ctx, batch, queue_of_[ctx.wid]); }
  void placed(const std::vector<uint32_t>& workers) override {
    for (size_t i = 0; i < workers.size(); ++i) {
      queue_of_[workers[i]] = static_cast<uint32_t>(i % port_->shape.out_queues);
    }
  }
  std::vector<std::string> exclusive(uint32_t wid, const std::vector<uint64_t>&) const override {
    return {queue_name(queue_of_[wid], "outgoing")};
  }

 private:
  uint32_t queue_of_[kMaxWorkers] = {};
};

class QueueOut final : public Output {
 public:
  Status init(Host& host, const Args& args) override {
    Status status = use_port(host, args);
    if (status.ok()) status = check_queue(args, port_->shape.out_queues);
    queue_ = static_cast<uint32_t>(args["qid"].as_uint());
    return status;
  }
  void process(Context& ctx, Batch& batch, Gate) override { send(ctx, batch, queue_); }
  std::vector<std::string> exclusive(uint32_t, const std::vector<uint64_t>&) const override {
    return {queue_name(queue_, "outgoing")};
  }

 private:
  uint32_t queue_ = 0;
};

const ModuleClass kPortInc = {
    "PortInc",
    "port_inc",
    "receives packets from all queues of a port",
    "PortIncArg",
    0,
    1,
    {{"set_burst", "PortIncCommandSetBurstArg", "EmptyArg", true, command(&Input::set_burst)}},
    make_module<PortInc>,
    kAnyWorkers};
const ModuleClass kQueueInc = {
    "QueueInc",
    "queue_inc",
    "receives packets from one queue of a port",
    "QueueIncArg",
    0,
    1,
    {{"set_burst", "QueueIncCommandSetBurstArg", "EmptyArg", true, command(&Input::set_burst)}},
    make_module<QueueInc>,
    kAnyWorkers};
const ModuleClass kPortOut = {
    "PortOut", "port_out", "sends packets to a port", "PortOutArg", kMaxGates,
    0,         {},         make_module<PortOut>,      kAnyWorkers};
const ModuleClass kQueueOut = {"QueueOut",
                               "queue_out",
                               "sends packets to one queue of a port",
                               "QueueOutArg",
                               1,
                               0,
                               {},
                               make_module<QueueOut>,
                               kAnyWorkers};
const ModuleRegistration kPortIncRegistered{kPortInc};
const ModuleRegistration kQueueIncRegistered{kQueueInc};
const ModuleRegistration kPortOutRegistered{kPortOut};
const ModuleRegistration kQueueOutRegistered{kQueueOut};

}  // namespace
}  // namespace e2
