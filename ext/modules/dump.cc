// SPDX-License-Identifier: BSD-3-Clause
// Dump: prints a packet and its metadata to standard output, now and then.
//
// Packets pass unchanged. While one is being printed, others are not looked at. At most 2048 bytes
// of a packet are shown, and all of its metadata.
//
// Family: measurement
// Gates: in 1, out 1.
// Arguments: DumpArg
// Commands:
//   set_interval  changes the interval; here 0 is an error
// Metadata: none by name.
// Drop reasons: none.
// Method: a worker copies the first packet of a batch to a slot and wakes the module's own thread,
// which formats and prints.
// Origin: the module of this name in BESS; the code is new.
#include <semaphore.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <thread>

#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kShownBytes = 2048;
constexpr double kMaxIntervalSeconds = 1e9;
constexpr uint32_t kLineBytes = 16;

enum class SlotState : uint32_t { kEmpty, kFilling, kFull };

struct Slot {
  uint32_t len = 0;
  uint32_t headroom = 0;
  uint32_t tailroom = 0;
  uint8_t bytes[kShownBytes];
  uint8_t metadata[kMetadataBytes];
};

void append_line(std::string& text, const uint8_t* bytes, uint32_t offset, uint32_t count) {
  char number[16];
  std::snprintf(number, sizeof number, "%04x: ", offset);
  text += number;
  for (uint32_t i = 0; i < kLineBytes; ++i) {
    if (i < count) {
      std::snprintf(number, sizeof number, "%02x ", bytes[offset + i]);
      text += number;
    } else {
      text += "   ";
    }
  }
  text += " |";
  for (uint32_t i = 0; i < count; ++i) {
    const uint8_t byte = bytes[offset + i];
    text += byte >= 0x20 && byte < 0x7f ? static_cast<char>(byte) : '.';
  }
  text += "|\n";
}

void append_hex(std::string& text, const uint8_t* bytes, uint32_t count) {
  for (uint32_t offset = 0; offset < count; offset += kLineBytes) {
    append_line(text, bytes, offset, std::min(kLineBytes, count - offset));
  }
}

class Dump final : public Module {
 public:
  Dump() { sem_init(&wake_, 0, 0); }
  ~Dump() override {
    if (printer_.joinable()) {
      stop_.store(true, std::memory_order_release);
      sem_post(&wake_);
      printer_.join();
    }
    sem_destroy(&wake_);
  }

  Status init(Host&, const Args& args) override {
    if (args["interval"].as_double() != 0.0) {
      Args none;
      Status status = set_interval(args, none);
      if (!status.ok()) return status;
    }
    printer_ = std::thread([this] { print_until_stopped(); });
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    if (ctx.now_ns >= next_ns_.load(std::memory_order_relaxed) && !batch.empty()) {
      offer(ctx.now_ns, *batch[0]);
    }
    emit(ctx, batch);
  }

  Status set_interval(const Args& args, Args&) {
    const double seconds = args["interval"].as_double();
    if (!(seconds > 0.0 && seconds <= kMaxIntervalSeconds)) {
      return Status::invalid("'interval' must be above 0 and at most 1e9 seconds");
    }
    interval_ns_.store(static_cast<uint64_t>(seconds * 1e9), std::memory_order_relaxed);
    return {};
  }

 private:
  void offer(uint64_t now_ns, const Packet& packet) {
    SlotState expected = SlotState::kEmpty;
    if (!state_.compare_exchange_strong(expected, SlotState::kFilling, std::memory_order_acquire)) {
      return;
    }
    next_ns_.store(now_ns + interval_ns_.load(std::memory_order_relaxed),
                   std::memory_order_relaxed);
    slot_.len = packet.len();
    slot_.headroom = packet.headroom();
    slot_.tailroom = packet.tailroom();
    std::memcpy(slot_.bytes, packet.data(), std::min(packet.len(), kShownBytes));
    std::memcpy(slot_.metadata, packet.metadata(0), kMetadataBytes);
    state_.store(SlotState::kFull, std::memory_order_release);
    sem_post(&wake_);  // never blocks
  }

  void print_until_stopped() {
    for (;;) {
      while (sem_wait(&wake_) != 0) {
      }
      const bool stop = stop_.load(std::memory_order_acquire);
      if (state_.load(std::memory_order_acquire) == SlotState::kFull) {
        print();
        state_.store(SlotState::kEmpty, std::memory_order_release);
      }
      if (stop) return;
    }
  }

  void print() const {
    std::string text = "----------------------------------------\n" + name() +
                       ": packet dump\nlength " + std::to_string(slot_.len) + ", headroom " +
                       std::to_string(slot_.headroom) + ", tailroom " +
                       std::to_string(slot_.tailroom) + "\n";
    append_hex(text, slot_.bytes, std::min(slot_.len, kShownBytes));
    text += "metadata\n";
    append_hex(text, slot_.metadata, kMetadataBytes);
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  std::atomic<uint64_t> interval_ns_{1'000'000'000};
  std::atomic<uint64_t> next_ns_{0};
  std::atomic<SlotState> state_{SlotState::kEmpty};
  std::atomic<bool> stop_{false};
  Slot slot_;
  sem_t wake_;
  std::thread printer_;
};

const ModuleClass kClass = {
    "Dump",
    "dump",
    "Dump packet data and metadata attributes",
    "DumpArg",
    1,
    1,
    {{"set_interval", "DumpArg", "EmptyArg", true, command(&Dump::set_interval)}},
    make_module<Dump>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
