// SPDX-License-Identifier: BSD-3-Clause
// FlowGen: makes packets that look like many TCP or UDP flows that come and go.
//
// A TCP flow starts with SYN and ends with FIN; both have no payload. A UDP flow has none of that.
//
// Family: endpoints
// Gates: in 0, out 1. One task.
// Arguments: FlowGenArg
// Commands:
//   update     changes what is given of template (not its protocol), pps, flow_rate, flow_duration,
//              arrival and duration; all or none; workers pause meanwhile, for flows may move
//   set_burst  packets per run of the task
// Metadata: none.
// Drop reasons: none.
// Method: flows wait in a heap by the time of their next packet. Both are allocated ahead for twice
// the expected number of flows (at most 1048576); arrivals beyond that are skipped.
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kMaxTemplateBytes = 1536;
constexpr uint32_t kMinFrameBytes = 60;
constexpr uint32_t kWireOverheadBytes = 24;
constexpr uint32_t kDefaultPortRange = 20000;
constexpr double kMaxFlows = 1048576;
constexpr double kSpareFlows = 1024;
constexpr uint32_t kFirstSeq = 12345;
constexpr uint32_t kOldFlowSeq = 56789;
constexpr uint8_t kTcpFin = 0x01;
constexpr uint8_t kTcpSyn = 0x02;
constexpr uint8_t kTcpAck = 0x10;
constexpr double kCenturyNs = 3.2e18;
constexpr double kParetoAlpha = 1.3;
constexpr double kParetoTail = 0.99;  // without the last 1 % of the tail the variance is finite

// A Pareto variate, at least 1, from y within 0..1.
double pareto(double y) { return std::pow(1.0 - y * kParetoTail, -1.0 / kParetoAlpha); }

// The mean of pareto() over y.
const double kParetoMean = (1.0 - std::pow(1.0 - kParetoTail, 1.0 - 1.0 / kParetoAlpha)) /
                           (kParetoTail * (1.0 - 1.0 / kParetoAlpha));

struct Frame {
  uint8_t bytes[kMaxTemplateBytes] = {};
  uint32_t len = 0;
  Headers headers;
};

struct Load {
  Frame data;
  Frame edge;  // SYN and FIN of TCP
  double pps = 1000.0;
  double flow_rate = 10.0;
  double flow_duration = 10.0;
  bool exponential = false;
  bool pareto = false;

  double flow_pps() const { return pps / (flow_rate * flow_duration); }
  double flow_packets() const { return pps / flow_rate; }
};

struct Flow {
  double packets_left = 0;
  uint32_t seq = 0;
  uint32_t src = 0;
  uint32_t dst = 0;
  uint16_t sport = 0;
  uint16_t dport = 0;
  bool first = false;
};

struct Event {
  uint64_t at_ns;
  uint32_t flow;
};
bool later(const Event& a, const Event& b) { return a.at_ns > b.at_ns; }

Status parse_template(const std::string& bytes, Load& load) {
  if (bytes.size() > kMaxTemplateBytes) {
    return Status::invalid("'template' has " + std::to_string(bytes.size()) +
                           " bytes; at most 1536 are possible");
  }
  Frame& data = load.data;
  data = Frame{};
  std::memcpy(data.bytes, bytes.data(), bytes.size());
  data.len = static_cast<uint32_t>(bytes.size());
  data.headers = parse_headers(data.bytes, data.len);
  const Headers& h = data.headers;
  if (h.ip_version != 4) return Status::invalid("'template' must be a whole IPv4 frame");
  if (h.ip_proto != kProtoTcp && h.ip_proto != kProtoUdp) {
    return Status::invalid("'template' must be TCP or UDP; its protocol is " +
                           std::to_string(h.ip_proto));
  }
  const bool udp_right = h.ip_proto == kProtoTcp || h.l4_off == 0 ||
                         load_be16(data.bytes + h.l4_off + 4) == h.payload_len + 8;
  if (l4_checksum_off(h) == 0 || !udp_right) {
    return Status::invalid(
        "'template' must be unfragmented, with IP and UDP lengths that agree with its size");
  }
  load.edge = data;
  Frame& edge = load.edge;
  const uint32_t end = h.payload_off;
  std::memset(edge.bytes + end, 0, sizeof edge.bytes - end);
  edge.len = std::max(kMinFrameBytes, end);
  store_be16(edge.bytes + h.l3_off + 2, static_cast<uint16_t>(end - h.l3_off));
  edge.headers = parse_headers(edge.bytes, edge.len);
  return {};
}

Status read_positive(const Args& args, const std::string& key, double& to) {
  if (!args.has(key)) return {};
  const double value = args[key].as_double();
  if (!std::isfinite(value) || value < 0.0) {
    return Status::invalid("'" + key + "' must be a number above 0");
  }
  if (value > 0.0) to = value;
  return {};
}

Status read_choice(const Args& args, const std::string& key, const std::string& other, bool& to) {
  const std::string& value = args[key].as_string();
  if (!value.empty() && value != "uniform" && value != other) {
    return Status::invalid("'" + key + "' must be either 'uniform' or '" + other + "', not '" +
                           value + "'");
  }
  if (!value.empty()) to = value == other;
  return {};
}

class FlowGen final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    for (const char* key : {"port_src_range", "port_dst_range"}) {
      if (args[key].as_uint() > 0xffff) {
        return Status::invalid(std::string("'") + key + "' must be within 0..65535");
      }
    }
    src_range_ = static_cast<uint32_t>(args["ip_src_range"].as_uint());
    dst_range_ = static_cast<uint32_t>(args["ip_dst_range"].as_uint());
    sport_range_ = static_cast<uint32_t>(args["port_src_range"].as_uint());
    dport_range_ = static_cast<uint32_t>(args["port_dst_range"].as_uint());
    if ((src_range_ | dst_range_ | sport_range_ | dport_range_) == 0) {
      sport_range_ = kDefaultPortRange;
      dport_range_ = kDefaultPortRange;
    }
    Args none;
    Status status = update(args, none);
    if (!status.ok()) return status;
    if (args["quick_rampup"].as_bool()) add_old_flows();
    add_task(0);
    return {};
  }

  Status update(const Args& args, Args&) {
    Load load = load_;
    Status status = read_load(args, load);
    if (!status.ok()) return status;
    load_ = load;
    const double flows = load.flow_rate * load.flow_duration;
    const auto capacity = static_cast<size_t>(std::min(kMaxFlows, 2 * flows + kSpareFlows));
    grow(capacity);
    return {};
  }

  Status set_burst(const Args& args, Args&) {
    const uint64_t burst = args["burst"].as_uint();
    if (burst > kMaxBatch) {
      return Status::invalid("'burst' " + std::to_string(burst) + " must be within 0..32");
    }
    burst_.store(static_cast<uint32_t>(burst), std::memory_order_relaxed);
    return {};
  }

  TaskResult run_task(Context& ctx, uint64_t) override {
    if (origin_ns_ == 0) origin_ns_ = ctx.now_ns;
    const uint64_t now_ns = ctx.now_ns - origin_ns_;
    admit(now_ns);
    Batch batch;
    const uint32_t burst = burst_.load(std::memory_order_relaxed);
    TaskResult result;
    if (burst > 0 && !events_.empty() && events_.front().at_ns <= now_ns) {
      const uint32_t room = ctx.alloc(batch, burst, std::max(load_.data.len, load_.edge.len));
      uint32_t made = 0;
      for (; made < room; ++made) {
        if (!make_packet(now_ns, *batch[made])) break;
        result.bits += uint64_t{batch[made]->len() + kWireOverheadBytes} * 8;
      }
      ctx.free(batch.packets + made, room - made);
      batch.size = made;
      result.packets = made;
    }
    result.block = result.packets == 0;
    emit(ctx, batch);
    return result;
  }

  std::string description() const override {
    return std::to_string(active_.load(std::memory_order_relaxed)) + " flows";
  }

 private:
  static Status read_load(const Args& args, Load& load) {
    const std::string& bytes = args["template"].as_string();
    if (!bytes.empty()) {
      const uint8_t old_proto = load.data.headers.ip_proto;
      Status status = parse_template(bytes, load);
      if (!status.ok()) return status;
      if (old_proto != 0 && old_proto != load.data.headers.ip_proto) {
        return Status::invalid("'template' must keep the protocol (TCP or UDP) it had at creation");
      }
    } else if (load.data.len == 0) {
      return Status::invalid("'template' must be specified: the bytes of an Ethernet frame");
    }
    Status status = read_positive(args, "pps", load.pps);
    if (status.ok()) status = read_positive(args, "flow_rate", load.flow_rate);
    if (status.ok()) status = read_positive(args, "flow_duration", load.flow_duration);
    if (status.ok()) status = read_choice(args, "arrival", "exponential", load.exponential);
    if (status.ok()) status = read_choice(args, "duration", "pareto", load.pareto);
    if (!status.ok()) return status;
    if (load.flow_rate > load.pps) {
      return Status::invalid("'flow_rate' must not be more than 'pps'");
    }
    if (load.flow_rate * load.flow_duration > kMaxFlows) {
      return Status::invalid("'flow_rate' * 'flow_duration' must be at most 1048576 flows");
    }
    return {};
  }

  void grow(size_t capacity) {
    const size_t old = flows_.size();
    if (capacity <= old) return;
    flows_.resize(capacity);
    events_.reserve(capacity);
    free_.reserve(capacity);
    for (size_t i = capacity; i > old; --i) free_.push_back(static_cast<uint32_t>(i - 1));
  }

  static double packets_at(const Load& load, double y) {
    const double mean = load.flow_packets();
    return load.pareto ? 1.0 + (pareto(y) - 1.0) / (kParetoMean - 1.0) * (mean - 1.0) : mean;
  }

  static uint64_t to_ns(double ns) { return static_cast<uint64_t>(std::min(ns, kCenturyNs)); }

  void schedule(uint64_t at_ns, uint32_t flow) {
    events_.push_back({at_ns, flow});
    std::push_heap(events_.begin(), events_.end(), later);
  }

  // A new flow whose first packet is due at that time, or nullptr when all flows are in use.
  Flow* add_flow(uint64_t at_ns) {
    if (free_.empty()) return nullptr;
    const uint32_t index = free_.back();
    free_.pop_back();
    Flow& flow = flows_[index];
    const Frame& frame = load_.data;
    const uint8_t* ip = frame.bytes + frame.headers.l3_off;
    flow.first = true;
    flow.seq = kFirstSeq;
    flow.src = load_be32(ip + 12) + random_.below(src_range_);
    flow.dst = load_be32(ip + 16) + random_.below(dst_range_);
    flow.sport = static_cast<uint16_t>(frame.headers.sport + random_.below(sport_range_));
    flow.dport = static_cast<uint16_t>(frame.headers.dport + random_.below(dport_range_));
    // The fraction of a packet comes up as a whole one that often.
    flow.packets_left = std::floor(packets_at(load_, random_.real()) + random_.real());
    active_.fetch_add(1, std::memory_order_relaxed);
    schedule(at_ns, index);
    return &flow;
  }

  void add_old_flows() {
    if (load_.flow_pps() < 1.0 || load_.flow_rate < 1.0) return;
    const double oldest = packets_at(load_, 1.0) / load_.flow_pps();
    for (uint64_t i = 1;; ++i) {
      const double age = static_cast<double>(i) / load_.flow_rate;
      if (age >= oldest) break;
      const double left = packets_at(load_, random_.real()) - load_.flow_pps() * age;
      if (left <= 0.0) continue;
      Flow* flow = add_flow(to_ns(1e9 * random_.real() / load_.flow_pps()));
      if (flow == nullptr) return;
      flow->first = false;
      flow->seq = kOldFlowSeq;
      flow->packets_left = std::floor(left);
    }
  }

  // Starts the flows that have come up to now; at most a batch of them per run.
  void admit(uint64_t now_ns) {
    for (uint32_t i = 0; i < kMaxBatch && next_arrival_ns_ <= now_ns; ++i) {
      add_flow(next_arrival_ns_);
      const double gap_ns = 1e9 / load_.flow_rate;
      next_arrival_ns_ +=
          to_ns(load_.exponential ? -std::log(1.0 - random_.real()) * gap_ns : gap_ns);
    }
  }

  // The packet of the first event that is due; false when none is.
  bool make_packet(uint64_t now_ns, Packet& packet) {
    while (!events_.empty() && events_.front().at_ns <= now_ns) {
      const Event event = events_.front();
      std::pop_heap(events_.begin(), events_.end(), later);
      events_.pop_back();
      Flow& flow = flows_[event.flow];
      if (flow.packets_left < 1.0) {
        free_.push_back(event.flow);
        active_.fetch_sub(1, std::memory_order_relaxed);
        continue;
      }
      fill(flow, packet);
      flow.first = false;
      flow.packets_left -= 1.0;
      schedule(event.at_ns + to_ns(1e9 / load_.flow_pps()), event.flow);
      return true;
    }
    return false;
  }

  void fill(Flow& flow, Packet& packet) const {
    const bool tcp = load_.data.headers.ip_proto == kProtoTcp;
    const bool last = flow.packets_left < 2.0;
    const Frame& frame = tcp && (flow.first || last) ? load_.edge : load_.data;
    const Headers& h = frame.headers;
    packet.reset(frame.len);
    uint8_t* data = packet.data();
    std::memcpy(data, frame.bytes, frame.len);
    uint8_t* ip = data + h.l3_off;
    uint8_t* l4 = data + h.l4_off;
    store_be32(ip + 12, flow.src);
    store_be32(ip + 16, flow.dst);
    store_be16(l4, flow.sport);
    store_be16(l4 + 2, flow.dport);
    if (tcp) {
      store_be32(l4 + 4, flow.seq);
      l4[13] = static_cast<uint8_t>((flow.first ? kTcpSyn : kTcpAck) | (last ? kTcpFin : 0));
      flow.seq += flow.first ? 1 : h.payload_len;
    }
    store_be16(data + l4_checksum_off(h), l4_checksum(data, h));
    store_be16(ip + 10, ipv4_checksum(ip, h.l3_len));
  }

  Load load_;
  uint32_t src_range_ = 0;
  uint32_t dst_range_ = 0;
  uint32_t sport_range_ = 0;
  uint32_t dport_range_ = 0;
  std::vector<Flow> flows_;
  std::vector<uint32_t> free_;
  std::vector<Event> events_;
  std::atomic<uint32_t> active_{0};
  std::atomic<uint32_t> burst_{kMaxBatch};
  uint64_t origin_ns_ = 0;  // of the times in events_
  uint64_t next_arrival_ns_ = 0;
  Random random_;
};

const ModuleClass kClass = {
    "FlowGen",
    "flowgen",
    "generates packets on a flow basis",
    "FlowGenArg",
    0,
    1,
    {{"update", "FlowGenArg", "EmptyArg", false, command(&FlowGen::update)},
     {"set_burst", "FlowGenCommandSetBurstArg", "EmptyArg", true, command(&FlowGen::set_burst)}},
    make_module<FlowGen>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
