// SPDX-License-Identifier: BSD-3-Clause
// Port: where packets enter and leave. A driver derives from Port and registers a PortClass.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "host/module.h"

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

struct PortConfig {
  std::string mac_addr = "02:00:00:00:00:00";
  uint32_t mtu_bytes = 1500;
  bool admin_up = true;  // modules neither receive from nor send to a port that is down
};

// Sizes are wishes: a driver whose queues are the kernel's, or a file, has no use for them.
struct PortShape {
  uint32_t in_queues = 1;
  uint32_t out_queues = 1;
  uint32_t in_queue_packets = 1024;
  uint32_t out_queue_packets = 1024;
  uint32_t packet_bytes = 2048;  // the longest packet that arrives whole: the pool's, not a wish
};

constexpr uint32_t kMaxQueues = 32;  // each way

// The totals of one queue. One thread writes at a time; anybody may read.
struct alignas(kCacheLineBytes) PortCount {
  std::atomic<uint64_t> packets{0};
  std::atomic<uint64_t> dropped{0};
  std::atomic<uint64_t> bytes{0};
  void add(uint64_t more_packets, uint64_t more_bytes) {
    packets.store(packets.load(std::memory_order_relaxed) + more_packets,
                  std::memory_order_relaxed);
    bytes.store(bytes.load(std::memory_order_relaxed) + more_bytes, std::memory_order_relaxed);
  }
  void add_dropped(uint64_t more) {
    dropped.store(dropped.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
};

class Port {
 public:
  virtual ~Port() = default;

  // Opens the port; on failure nothing stays open. The shape is within what the class allows.
  virtual Status init(const PortShape& shape, const Args& args) = 0;
  // Appends up to `max` packets to the batch. Called by one worker at a time and queue.
  virtual void receive(Context& ctx, uint32_t queue, Batch& batch, uint32_t max) = 0;
  // Takes (frees or hands on) the first n packets and returns n; the caller drops the rest.
  virtual uint32_t send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) = 0;
  // Flushes and closes; reports a failure such as a full disk. No worker uses the port any more.
  virtual Status close() { return {}; }
  virtual bool link_up() const { return true; }
  // A descriptor that becomes readable when packets may have come to the queue; -1: there is none.
  // It stays the same until the port is closed.
  virtual int wake_fd(uint32_t /*queue*/) const { return -1; }
  // Takes over an address and an MTU that differ from `config`; the caller stores them then, and
  // sees to `admin_up`. No worker uses the port meanwhile.
  virtual Status configure(const PortConfig& wanted);

  PortCount in[kMaxQueues];  // by queue
  PortCount out[kMaxQueues];
  PortConfig config;
  PortShape shape;
  std::string name;
  const struct PortClass* port_class = nullptr;
  int users = 0;  // modules that refer to this port
};

struct PortClass {
  const char* name;
  const char* name_template;
  const char* help;
  const char* arg_type;
  std::function<std::unique_ptr<Port>()> make;
  uint32_t max_queues = 1;  // each way
};

class PortRegistration {
 public:
  explicit PortRegistration(const PortClass& port_class, uint64_t layout = kHostLayout);
  ~PortRegistration();
  PortRegistration(const PortRegistration&) = delete;
  PortRegistration& operator=(const PortRegistration&) = delete;

 private:
  std::string name_;  // empty where it was refused
};
const PortClass* find_port_class(const std::string& name);
std::vector<const PortClass*> port_classes();

}  // namespace e2
#pragma GCC visibility pop
