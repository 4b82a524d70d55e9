// SPDX-License-Identifier: BSD-3-Clause
// LoadMonitor: tells controllers when a queue fills up or packets take long, and when it is over.
//
// It watches how full the module `queue` is, and how old packets are that pass through it: those
// that an upstream Timestamp marked. Packets pass unchanged. Both figures are averages that forget
// with a time constant. Overload starts when one of them reaches its high threshold, and ends when
// none is above its low one; no two changes are closer than the hold time. A time without packets
// counts as one without delay; a queue that is gone counts as empty.
//
// Family: measurement
// Gates: in 1, out 1. One task, which takes a sample each interval and sends nothing.
// Arguments: LoadMonitorArg
// Commands:
//   get_status  the averages, the state and how often it changed
// Metadata: reads `attr_name` (8 bytes), where delay is watched.
// Drop reasons: none.
// Events:
//   "overload"  with the share of the queue that is taken, in millionths, and the delay in ns
//   "relief"    with the same
// Method: workers add up delays, each on a line of its own; the task does all the rest.
// Origin: new; section 3.4.3 of the dissertation.
#include <atomic>
#include <cmath>

#include "host/module.h"
#include "host/occupancy.h"
#include "modules/field_value.h"
#include "modules/load_filter.h"
#include "modules/timestamp.h"

namespace e2 {
namespace {

constexpr double kDefaultHighOccupancy = 0.8;
constexpr uint64_t kDefaultTimeConstantNs = 100'000'000;
constexpr uint64_t kDefaultHoldNs = 1'000'000'000;
constexpr uint64_t kMaxNs = 1'000'000'000'000'000'000;
constexpr double kMillion = 1e6;
constexpr auto kRelaxed = std::memory_order_relaxed;

class LoadMonitor final : public Module {
 public:
  Status init(Host& host, const Args& args) override {
    Status status = find_queue(host, args["queue"].as_string());
    if (status.ok()) status = read_occupancies(args);
    if (status.ok()) status = read_times(args);
    if (!status.ok()) return status;
    if (queue_ == nullptr && high_delay_ns_ == 0) {
      return Status::invalid("give 'queue', a module to watch, or 'high_delay_ns', or both");
    }
    if (high_delay_ns_ != 0) {
      const std::string& name = args["attr_name"].as_string();
      stamp_ = add_attr(name.empty() ? kStampAttr : name, sizeof(uint64_t), Access::kRead);
    }
    overload_ = add_event("overload", {"occupancy_ppm", "delay_ns"});
    relief_ = add_event("relief", {"occupancy_ppm", "delay_ns"});
    add_task(0);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    if (high_delay_ns_ != 0) {
      const int place = attr_offset(stamp_);
      const uint64_t now_ns = clock_ns();
      uint64_t packets = 0;
      uint64_t delay_ns = 0;
      for (uint32_t i = 0; i < batch.size; ++i) {
        const auto stamp_ns = read_attr_as<uint64_t>(*batch[i], place);
        if (stamp_ns == 0 || stamp_ns > now_ns) continue;
        ++packets;
        delay_ns += now_ns - stamp_ns;
      }
      Delays& mine = delays_[ctx.wid];
      mine.packets.store(mine.packets.load(kRelaxed) + packets, kRelaxed);
      mine.ns.store(mine.ns.load(kRelaxed) + delay_ns, kRelaxed);
    }
    emit(ctx, batch);
  }

  TaskResult run_task(Context& ctx, uint64_t) override {
    const uint64_t span_ns = ctx.now_ns - sampled_ns_;
    if (started_ && span_ns < interval_ns_) return {true, 0, 0};
    const double delay_ns = mean_delay_ns();  // since the last call
    sampled_ns_ = ctx.now_ns;
    if (started_) sample(ctx.now_ns, span_ns, delay_ns);
    started_ = true;
    return {true, 0, 0};
  }

  Status get_status(const Args&, Args& response) {
    response.set("overloaded", overloaded_.load(kRelaxed));
    response.set("occupancy", occupancy_now_.load(kRelaxed));
    response.set("delay_ns", delay_now_ns_.load(kRelaxed));
    response.set("overloads", overloads_.load(kRelaxed));
    response.set("reliefs", reliefs_.load(kRelaxed));
    response.set("queue", queue_ != nullptr && *queue_ != nullptr ? queue_name_ : "");
    return {};
  }

  std::string description() const override {
    return overloaded_.load(kRelaxed) ? "overload" : "normal";
  }

 private:
  // Totals with one writer each.
  struct alignas(kCacheLineBytes) Delays {
    std::atomic<uint64_t> packets{0};
    std::atomic<uint64_t> ns{0};
  };

  void sample(uint64_t now_ns, uint64_t span_ns, double delay_ns) {
    occupancy_.add(taken_share(), span_ns);
    delay_.add(delay_ns, span_ns);
    const double occupancy = occupancy_.value();
    const double delay = delay_.value();
    occupancy_now_.store(occupancy, kRelaxed);
    delay_now_ns_.store(delay, kRelaxed);
    const bool watches_delay = high_delay_ns_ != 0;
    const auto high_delay = static_cast<double>(high_delay_ns_);
    const auto low_delay = static_cast<double>(low_delay_ns_);
    const bool high = (queue_ != nullptr && occupancy >= high_occupancy_) ||
                      (watches_delay && delay >= high_delay);
    const bool low = (queue_ == nullptr || occupancy <= low_occupancy_) &&
                     (!watches_delay || delay <= low_delay);
    if (!state_.update(now_ns, high, low)) return;
    const bool overloaded = state_.overloaded();
    overloaded_.store(overloaded, kRelaxed);
    (overloaded ? overloads_ : reliefs_).fetch_add(1, kRelaxed);
    post_event(overloaded ? overload_ : relief_,
               {static_cast<uint64_t>(occupancy * kMillion), static_cast<uint64_t>(delay)});
  }

  double taken_share() const {
    const Occupancy* const queue = queue_ == nullptr ? nullptr : *queue_;
    if (queue == nullptr) return 0;
    return static_cast<double>(queue->waiting()) / static_cast<double>(queue->most_waiting());
  }

  double mean_delay_ns() {
    uint64_t packets = 0;
    uint64_t ns = 0;
    for (const Delays& delays : delays_) {
      packets += delays.packets.load(kRelaxed);
      ns += delays.ns.load(kRelaxed);
    }
    const uint64_t new_packets = packets - packets_;
    const uint64_t new_ns = ns - ns_;
    packets_ = packets;
    ns_ = ns;
    return new_packets == 0 ? 0 : static_cast<double>(new_ns) / static_cast<double>(new_packets);
  }

  Status find_queue(Host& host, const std::string& name) {
    if (name.empty()) return {};
    Module* const module = host.find_module(name);
    if (module == nullptr) {
      return Status::error(ENOENT, "'queue': there is no module '" + name + "'; create it first");
    }
    const auto* const queue = dynamic_cast<const Occupancy*>(module);
    if (queue == nullptr) {
      return Status::invalid("'queue': module '" + name + "' (" + module->module_class().name +
                             ") keeps no packets; name a Queue");
    }
    queue_ = queue->handle();
    queue_name_ = name;
    return {};
  }

  Status read_occupancies(const Args& args) {
    const double high = args["high_occupancy"].as_double();
    const double low = args["low_occupancy"].as_double();
    if (!(high >= 0 && high <= 1)) return Status::invalid("'high_occupancy' must be within 0..1");
    high_occupancy_ = high == 0 ? kDefaultHighOccupancy : high;
    if (!(low >= 0 && low < high_occupancy_)) {
      return Status::invalid("'low_occupancy' must be below 'high_occupancy'");
    }
    low_occupancy_ = low == 0 ? high_occupancy_ / 2 : low;
    return {};
  }

  Status read_times(const Args& args) {
    for (const char* key :
         {"high_delay_ns", "low_delay_ns", "time_constant_ns", "hold_ns", "interval_ns"}) {
      if (args[key].as_uint() > kMaxNs) {
        return Status::invalid("'" + std::string(key) + "' must be at most 10^18");
      }
    }
    high_delay_ns_ = args["high_delay_ns"].as_uint();
    low_delay_ns_ = args["low_delay_ns"].as_uint();
    if (low_delay_ns_ != 0 && low_delay_ns_ >= high_delay_ns_) {
      return Status::invalid("'low_delay_ns' must be below 'high_delay_ns'");
    }
    if (low_delay_ns_ == 0) low_delay_ns_ = high_delay_ns_ / 2;
    uint64_t time_constant_ns = args["time_constant_ns"].as_uint();
    if (time_constant_ns == 0) time_constant_ns = kDefaultTimeConstantNs;
    occupancy_.set_time_constant(time_constant_ns);
    delay_.set_time_constant(time_constant_ns);
    const uint64_t hold_ns = args["hold_ns"].as_uint();
    state_.set_hold(hold_ns == 0 ? kDefaultHoldNs : hold_ns);
    interval_ns_ = args["interval_ns"].as_uint();
    if (interval_ns_ == 0) interval_ns_ = time_constant_ns / 10;
    return {};
  }

  Occupancy::Handle queue_;
  std::string queue_name_;
  double high_occupancy_ = 0;
  double low_occupancy_ = 0;
  uint64_t high_delay_ns_ = 0;  // 0: not watched
  uint64_t low_delay_ns_ = 0;
  uint64_t interval_ns_ = 0;
  size_t stamp_ = 0;
  uint32_t overload_ = 0;
  uint32_t relief_ = 0;
  Delays delays_[kMaxWorkers];

  // The task's own.
  bool started_ = false;
  uint64_t sampled_ns_ = 0;
  uint64_t packets_ = 0;
  uint64_t ns_ = 0;
  Ewma occupancy_;
  Ewma delay_;
  Hysteresis state_;

  // What get_status reads.
  std::atomic<bool> overloaded_{false};
  std::atomic<double> occupancy_now_{0};
  std::atomic<double> delay_now_ns_{0};
  std::atomic<uint64_t> overloads_{0};
  std::atomic<uint64_t> reliefs_{0};
};

const ModuleClass kClass = {
    "LoadMonitor",
    "load_monitor",
    "tells controllers about overload, by queue occupancy and packet delay",
    "LoadMonitorArg",
    1,
    1,
    {{"get_status", "LoadMonitorCommandGetStatusArg", "LoadMonitorCommandGetStatusResponse", true,
      command(&LoadMonitor::get_status)}},
    make_module<LoadMonitor>,
    kAnyWorkers,
    false,
    false,
    true};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
