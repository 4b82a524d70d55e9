// SPDX-License-Identifier: BSD-3-Clause
// Delay: holds each packet for a fixed time, as a long cable does.
//
// Packets leave in the order in which they came. One that came before set_delay keeps its time, and
// those behind it wait for it.
//
// Family: distribution
// Gates: in 1, out 1. One task.
// Arguments: DelayArg
// Commands:
//   set_delay   another time for packets that come from now on; workers pause meanwhile
//   get_status  how many packets are held, and how many have left; workers pause meanwhile
// Metadata: none.
// Drop reasons:
//   "full"  it holds as many packets as it may
// Limits: the tasks that lead here and its own must run on one worker; put a Queue before it to
// bring packets from others. Packets are late by what other tasks take in between. Those that it
// holds are of the daemon's pool, which a long delay at a high rate may empty.
// Method: a ring of packets and their times, which is allocated once. A worker that finds nothing
// to do sleeps until shortly before the next packet's time.
// Origin: original to this project.
#include <memory>

#include "host/module.h"

namespace e2 {
namespace {

constexpr uint64_t kNsPerUs = 1000;
constexpr uint64_t kMaxDelayUs = 10'000'000;
constexpr uint64_t kDefaultPackets = 4096;
constexpr uint64_t kMostPackets = 1 << 20;
constexpr uint32_t kOverheadBytes = 24;  // of a packet on the wire

class Delay final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    add_task(0);
    full_ = add_drop_reason("full");
    size_ = args["size"].as_uint(kDefaultPackets);
    if (size_ == 0 || size_ > kMostPackets || (size_ & (size_ - 1)) != 0) {
      return Status::invalid("Delay.size is " + std::to_string(size_) +
                             "; must be a power of two within 1.." + std::to_string(kMostPackets));
    }
    held_ = std::make_unique<Held[]>(size_);
    return read_delay(args, "Delay");
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const uint64_t due_ns = ctx.now_ns + delay_ns_;
    for (Packet* packet : batch) {
      if (came_ - left_ == size_) {
        drop(ctx, packet, full_);
      } else {
        held_[came_++ & (size_ - 1)] = {packet, due_ns};
      }
    }
    batch.clear();
  }

  TaskResult run_task(Context& ctx, uint64_t) override {
    Batch batch;
    uint64_t bytes = 0;
    while (left_ != came_ && held_[left_ & (size_ - 1)].due_ns <= ctx.now_ns && !batch.full()) {
      Packet* const packet = held_[left_++ & (size_ - 1)].packet;
      bytes += packet->len();
      batch.add(packet);
    }
    const uint32_t count = batch.size;
    if (count == 0) {
      if (left_ != came_) ctx.wake_at(held_[left_ & (size_ - 1)].due_ns);
      return {true, 0, 0};
    }
    emit(ctx, batch);
    return {false, count, (bytes + uint64_t{count} * kOverheadBytes) * 8};
  }

  void release(Context& ctx) override {
    for (; left_ != came_; ++left_) ctx.free(&held_[left_ & (size_ - 1)].packet, 1);
  }

  Status set_delay(const Args& args, Args&) { return read_delay(args, "set_delay"); }

  Status get_status(const Args&, Args& response) {
    response.set("held", came_ - left_);
    response.set("left", left_);
    return {};
  }

  std::string description() const override { return std::to_string(delay_ns_ / kNsPerUs) + " us"; }

 private:
  struct Held {
    Packet* packet;
    uint64_t due_ns;
  };

  Status read_delay(const Args& args, const std::string& where) {
    const uint64_t us = args["delay_us"].as_uint();
    if (us > kMaxDelayUs) {
      return Status::invalid(where + ".delay_us is " + std::to_string(us) + "; must be at most " +
                             std::to_string(kMaxDelayUs));
    }
    delay_ns_ = us * kNsPerUs;
    return {};
  }

  std::unique_ptr<Held[]> held_;
  uint64_t size_ = 0;
  uint64_t delay_ns_ = 0;
  uint64_t came_ = 0;
  uint64_t left_ = 0;
  uint32_t full_ = 0;
};

const ModuleClass kClass = {
    "Delay",
    "delay",
    "holds each packet for a fixed time",
    "DelayArg",
    1,
    1,
    {{"set_delay", "DelayCommandSetDelayArg", "EmptyArg", false, command(&Delay::set_delay)},
     {"get_status", "DelayCommandGetStatusArg", "DelayCommandGetStatusResponse", false,
      command(&Delay::get_status)}},
    make_module<Delay>,
    1,
    true};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
