// SPDX-License-Identifier: BSD-3-Clause
// Measure: histograms of how long packets took since their Timestamp, and of its variation.
//
// Packets pass unchanged; those without a stamp, or with one from the future, only count as
// packets.
//
// Family: measurement
// Gates: in 1, out 1.
// Arguments: MeasureArg
// Commands:
//   get_summary  what was counted since the start or the last clear
//   clear        starts over
// Metadata: reads `attr_name` (8 bytes), unless `offset` is given; where no module upstream writes
// it, no packet has a stamp.
// Drop reasons: none.
// Method: counters are relaxed atomics that all workers share; nobody waits for anybody.
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "host/module.h"
#include "modules/field_value.h"
#include "modules/timestamp.h"

namespace e2 {
namespace {

constexpr uint64_t kDefaultMaxNs = 100'000'000;
constexpr uint64_t kDefaultResolutionNs = 100;
constexpr double kDefaultSampleProb = 0.05;
constexpr uint64_t kMaxBuckets = 5'000'000;
constexpr uint64_t kWireOverheadBytes = 24;
constexpr auto kRelaxed = std::memory_order_relaxed;

class Histogram {
 public:
  void resize(uint64_t buckets, uint64_t width_ns) {
    counts_ = std::vector<std::atomic<uint64_t>>(buckets + 1);  // the last one: above range
    width_ns_ = width_ns;
  }
  void add(uint64_t value_ns, uint64_t times) {
    const uint64_t bucket = std::min<uint64_t>(value_ns / width_ns_, counts_.size() - 1);
    counts_[bucket].fetch_add(times, kRelaxed);
  }
  void clear() {
    for (auto& count : counts_) count.store(0, kRelaxed);
  }
  Args summarize(const std::vector<double>& percentiles, bool clear) {
    std::vector<uint64_t> counts(counts_.size());
    uint64_t all = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      counts[i] = clear ? counts_[i].exchange(0, kRelaxed) : counts_[i].load(kRelaxed);
      all += counts[i];
    }
    uint64_t seen = 0;
    uint64_t total = 0;
    uint64_t min = 0;
    uint64_t max = 0;
    Args::List values;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == 0) continue;
      const uint64_t value = i * width_ns_;
      if (seen == 0) min = value;
      max = value;
      seen += counts[i];
      total += value * counts[i];
      while (values.size() < percentiles.size() && reached(seen, all, percentiles[values.size()])) {
        values.emplace_back(value);
      }
    }
    while (values.size() < percentiles.size()) values.emplace_back(uint64_t{0});
    Args summary;
    summary.set("count", all);
    summary.set("above_range", counts.back());
    summary.set("resolution_ns", width_ns_);
    summary.set("min_ns", min);
    summary.set("max_ns", max);
    summary.set("avg_ns", all == 0 ? uint64_t{0} : total / all);
    summary.set("total_ns", total);
    summary.set("percentile_values_ns", std::move(values));
    return summary;
  }

 private:
  static bool reached(uint64_t seen, uint64_t all, double percentile) {
    return seen == all ||
           static_cast<double>(seen) * 100.0 / static_cast<double>(all) >= percentile;
  }

  std::vector<std::atomic<uint64_t>> counts_;
  uint64_t width_ns_ = 1;
};

Status read_percentiles(const Args& args, const std::string& key, std::vector<double>& to) {
  for (const Args& item : args[key].as_list()) {
    const double value = item.as_double(NAN);
    const bool ascending = to.empty() || value >= to.back();
    if (!(value >= 0.0 && value <= 100.0) || !ascending) {
      return Status::invalid("'" + key + "' must be ascending numbers within 0..100");
    }
    to.push_back(value);
  }
  return {};
}

class Measure final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    const uint64_t offset = args["offset"].as_uint();
    if (offset > kMaxStampOffset) {
      return Status::invalid("'offset' " + std::to_string(offset) + " must be within 1.." +
                             std::to_string(kMaxStampOffset));
    }
    uint64_t max_ns = args["latency_ns_max"].as_uint();
    uint64_t width_ns = args["latency_ns_resolution"].as_uint();
    double prob = args["jitter_sample_prob"].as_double();
    if (max_ns == 0) max_ns = kDefaultMaxNs;
    if (width_ns == 0) width_ns = kDefaultResolutionNs;
    if (prob == 0.0) prob = kDefaultSampleProb;
    if (!(prob >= 0.0 && prob <= 1.0)) {
      return Status::invalid("'jitter_sample_prob' must be within 0..1");
    }
    const uint64_t buckets = max_ns / width_ns + (max_ns % width_ns != 0);
    if (buckets > kMaxBuckets) {
      return Status::error(E2BIG, "'latency_ns_max' / 'latency_ns_resolution' is " +
                                      std::to_string(buckets) + " buckets; at most " +
                                      std::to_string(kMaxBuckets) + " are possible");
    }
    log_not_sampled_ = std::log1p(-prob);
    latency_.resize(buckets, width_ns);
    jitter_.resize(buckets, width_ns);
    offset_ = static_cast<uint32_t>(offset);
    if (offset_ == 0) {
      const std::string& name = args["attr_name"].as_string();
      attr_ = add_attr(name.empty() ? kStampAttr : name, sizeof(uint64_t), Access::kMayRead);
    }
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const uint64_t now_ns = clock_ns();
    uint64_t bytes = 0;
    uint64_t run_ns = 0;  // the latency of the last packets
    uint64_t run = 0;  // how many of them share it: packets of a batch were mostly stamped together
    uint64_t skip = unsampled_[ctx.wid].packets;
    for (uint32_t i = 0; i < batch.size; ++i) {
      const uint64_t stamp_ns = stamp_of(*batch[i]);
      if (stamp_ns == 0 || stamp_ns > now_ns) continue;
      bytes += batch[i]->len();
      const uint64_t latency_ns = now_ns - stamp_ns;
      if (latency_ns != run_ns) {
        if (run != 0) latency_.add(run_ns, run);
        run_ns = latency_ns;
        run = 0;
      }
      ++run;
      if (skip-- == 0) {
        sample_jitter(latency_ns);
        skip = draw_skip(ctx.random);
      }
    }
    if (run != 0) latency_.add(run_ns, run);
    unsampled_[ctx.wid].packets = skip;
    packets_.fetch_add(batch.size, kRelaxed);
    bytes_.fetch_add(bytes, kRelaxed);
    emit(ctx, batch);
  }

  Status get_summary(const Args& args, Args& response) {
    std::vector<double> latency;
    std::vector<double> jitter;
    Status status = read_percentiles(args, "latency_percentiles", latency);
    if (status.ok()) status = read_percentiles(args, "jitter_percentiles", jitter);
    if (!status.ok()) return status;
    const bool clear = args["clear"].as_bool();
    const uint64_t packets = clear ? packets_.exchange(0, kRelaxed) : packets_.load(kRelaxed);
    const uint64_t bytes = clear ? bytes_.exchange(0, kRelaxed) : bytes_.load(kRelaxed);
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    response.set("timestamp",
                 static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9);
    response.set("packets", packets);
    response.set("bits", (bytes + packets * kWireOverheadBytes) * 8);
    response.set("latency", latency_.summarize(latency, clear));
    response.set("jitter", jitter_.summarize(jitter, clear));
    return {};
  }

  Status clear(const Args&, Args&) {
    packets_.store(0, kRelaxed);
    bytes_.store(0, kRelaxed);
    latency_.clear();
    jitter_.clear();
    return {};
  }

 private:
  // 0 where the packet has no stamp.
  uint64_t stamp_of(const Packet& packet) const {
    uint64_t stamp_ns = 0;
    if (offset_ == 0) {
      read_attr(packet, attr_offset(attr_), &stamp_ns, sizeof stamp_ns);
    } else if (packet.len() >= offset_ + kStampBytes) {
      const uint8_t* at = packet.data() + offset_;
      uint32_t marker;
      std::memcpy(&marker, at, sizeof marker);
      if (marker == kStampMarker) std::memcpy(&stamp_ns, at + sizeof marker, sizeof stamp_ns);
    }
    return stamp_ns;
  }

  // How many packets to pass over before the next sample, where each is one with the probability
  // asked for.
  uint64_t draw_skip(Random& random) const {
    return static_cast<uint64_t>(std::log1p(-random.real()) / log_not_sampled_);
  }

  void sample_jitter(uint64_t latency_ns) {
    const uint64_t last = last_ns_.exchange(latency_ns, kRelaxed);
    if (last != 0) jitter_.add(latency_ns > last ? latency_ns - last : last - latency_ns, 1);
  }

  uint32_t offset_ = 0;
  size_t attr_ = 0;
  double log_not_sampled_ = 0;  // -infinity where each packet is sampled
  struct alignas(kCacheLineBytes) Unsampled {
    uint64_t packets = 0;  // until the next sample of jitter
  };
  Unsampled unsampled_[kMaxWorkers];
  Histogram latency_;
  Histogram jitter_;
  std::atomic<uint64_t> last_ns_{0};
  std::atomic<uint64_t> packets_{0};
  std::atomic<uint64_t> bytes_{0};
};

const ModuleClass kClass = {
    "Measure",
    "measure",
    "measures packet latency (paired with Timestamp module)",
    "MeasureArg",
    1,
    1,
    {{"get_summary", "MeasureCommandGetSummaryArg", "MeasureCommandGetSummaryResponse", true,
      command(&Measure::get_summary)},
     {"clear", "EmptyArg", "EmptyArg", true, command(&Measure::clear)}},
    make_module<Measure>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
