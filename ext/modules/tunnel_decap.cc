// SPDX-License-Identifier: BSD-3-Clause
// TunnelDecap: takes frames out of a Geneve tunnel and sends each to the gate of its edge.
//
// The opposite of TunnelEncap. Outer VLAN tags, IP options and Ethernet padding go too. Nothing in
// a packet is trusted: what is not whole and right is dropped and counted by reason. Options that
// are not configured are skipped unless they are critical, whatever their class; reserved bits and
// padding don't matter (RFC 8926). Changing an edge's gate keeps its count.
//
// Family: headers
// Gates: in 1, out 8192.
// Arguments: TunnelDecapArg
// Commands:
//   set_edges         replaces all edges
//   add_edges         adds edges, or changes their gates
//   remove_edges      removes edges; ENOENT and no change where one is not there
//   set_default_gate  where packets of other edges go
//   get_stats         packets by edge
// Metadata: writes the attributes of `options`, and `vni_attr` (4 bytes, network order).
// Drop reasons:
//   "not Geneve"               not UDP over IP, or another destination port than 6081
//   "fragment"                 the outer packet is one
//   "bad length"               lengths of frame, IP, UDP and options disagree
//   "bad IP checksum"          of the outer IPv4 header
//   "bad UDP checksum"         wrong, or none over IPv6 without `zero_checksum`
//   "unknown version"          of Geneve; 0 is known
//   "control packet"           of the tunnel itself (RFC 8926, the O bit)
//   "not Ethernet"             the tunnel carries something else, or less than an Ethernet header
//   "bad option"               cut, twice in a packet, or of another length than configured
//   "unknown critical option"  one that is not configured
//   "edge"                     gate 8192 of an edge
//   "unknown edge"             gate 8192 as the default
// Method: options in the order of the arguments are recognized by one compare each; others are
// looked for one by one. Commands change edges while packets flow (live_table.h).
// Origin: new; Geneve is RFC 8926.
#include <algorithm>
#include <atomic>
#include <map>

#include "host/headers.h"
#include "host/live_table.h"
#include "modules/gate_args.h"
#include "modules/geneve.h"
#include "modules/key_table.h"

namespace e2 {
namespace {

constexpr size_t kMaxEdges = 1 << 20;

class TunnelDecap final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    not_geneve_ = drop_gate(add_drop_reason("not Geneve"));
    fragment_ = drop_gate(add_drop_reason("fragment"));
    bad_length_ = drop_gate(add_drop_reason("bad length"));
    bad_ip_sum_ = drop_gate(add_drop_reason("bad IP checksum"));
    bad_udp_sum_ = drop_gate(add_drop_reason("bad UDP checksum"));
    bad_version_ = drop_gate(add_drop_reason("unknown version"));
    control_ = drop_gate(add_drop_reason("control packet"));
    not_ethernet_ = drop_gate(add_drop_reason("not Ethernet"));
    bad_option_ = drop_gate(add_drop_reason("bad option"));
    critical_ = drop_gate(add_drop_reason("unknown critical option"));
    edge_drop_ = drop_gate(add_drop_reason("edge"));
    default_drop_ = drop_gate(add_drop_reason("unknown edge"));
    default_gate_ = default_drop_;
    Status status = read_tunnel_options(args["options"].as_list(), options_);
    if (status.ok()) status = change_edges(args["edges"], "'edges'");
    if (status.ok() && args.has("default_gate")) {
      status = set_default(args["default_gate"], "'default_gate'");
    }
    if (!status.ok()) return status;
    for (const TunnelOption& option : options_) add_attr(option.attr, option.size, Access::kWrite);
    const std::string& vni_attr = args["vni_attr"].as_string();
    const bool twice = std::any_of(options_.begin(), options_.end(),
                                   [&](const TunnelOption& o) { return o.attr == vni_attr; });
    if (twice) return Status::invalid("'vni_attr' '" + vni_attr + "' is one of 'options' too");
    has_vni_attr_ = !vni_attr.empty();
    if (has_vni_attr_) add_attr(vni_attr, 4, Access::kWrite);
    zero_checksum_ = args["zero_checksum"].as_bool();
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    KeyBatch keys;
    const uint64_t* hits[kMaxBatch];
    OptionReader options;
    for (size_t i = 0; i < options_.size(); ++i) options.add(options_[i], attr_offset(i));
    const int vni_place = has_vni_attr_ ? attr_offset(options_.size()) : kNoOffset;
    const uint32_t size = batch.size;
    for (uint32_t i = 0; i < size; ++i) {
      uint32_t vni = 0;
      gates[i] = decapsulate(*batch[i], options, vni_place, vni);
      keys.words[0][i] = vni;
    }
    auto table = table_.read(ctx);
    table->edges.find_batch(keys, size, hits);
    const Gate fallback = default_gate_.load(std::memory_order_relaxed);
    Count* last = nullptr;
    uint64_t run = 0;  // packets of `last` that are not counted yet
    for (uint32_t i = 0; i < size; ++i) {
      if (gates[i] != 0) continue;
      Count* const counted = hits[i] == nullptr ? &other_ : count_of(hits[i]);
      gates[i] = hits[i] == nullptr ? fallback : static_cast<Gate>(hits[i][0]);
      if (counted != last) {
        if (run != 0) count(*last, run);
        last = counted;
        run = 0;
      }
      ++run;
    }
    if (run != 0) count(*last, run);
    table.release();
    emit_by_gate(ctx, batch, gates);
  }

  void placed(const std::vector<uint32_t>& workers) override { alone_ = workers.size() == 1; }

  std::string description() const override { return std::to_string(edges_.size()) + " edges"; }

  Status set_edges(const Args& args, Args&) {
    std::map<uint32_t, Gate> gates;
    Status status = read_edges(args["edges"], "set_edges: edges", gates);
    if (!status.ok()) return status;
    apply(gates, true);
    for (auto at = edges_.begin(); at != edges_.end();) {
      at = gates.count(at->first) != 0 ? std::next(at) : edges_.erase(at);
    }
    return {};
  }

  Status add_edges(const Args& args, Args&) {
    return change_edges(args["edges"], "add_edges: edges");
  }

  Status remove_edges(const Args& args, Args&) {
    const Args::List& vnis = args["vnis"].as_list();
    for (const Args& vni : vnis) {
      if (edges_.count(static_cast<uint32_t>(vni.as_uint())) == 0 || vni.as_uint() > kMaxVni) {
        return Status::error(ENOENT,
                             "remove_edges: there is no edge " + std::to_string(vni.as_uint()));
      }
    }
    table_.change([&vnis](Table& table) {
      for (const Args& vni : vnis) {
        const uint64_t key = vni.as_uint();
        table.edges.erase(&key);
      }
    });
    for (const Args& vni : vnis) edges_.erase(static_cast<uint32_t>(vni.as_uint()));
    return {};
  }

  Status set_default_gate(const Args& args, Args&) {
    return set_default(args["gate"], "set_default_gate: gate");
  }

  Status get_stats(const Args&, Args& response) {
    Args::List edges;
    for (const auto& edge : edges_) {
      Args entry;
      entry.set("vni", static_cast<uint64_t>(edge.first));
      entry.set("gate", gate_number(edge.second.gate));
      entry.set("packets", edge.second.packets.load(std::memory_order_relaxed));
      edges.push_back(std::move(entry));
    }
    response.set("edges", std::move(edges));
    response.set("other_packets", other_.load(std::memory_order_relaxed));
    response.set("default_gate", gate_number(default_gate_));
    return {};
  }

 private:
  using Count = std::atomic<uint64_t>;
  struct Edge {
    Gate gate = 0;
    Count packets{0};
  };
  // What packets meet: both copies point to the same counts.
  struct Table {
    KeyTable edges{1, 2};  // a row's payload is the gate and the address of the count
  };
  static_assert(sizeof(Count*) <= sizeof(uint64_t), "an address fits a word of the table");
  static Count* count_of(const uint64_t* payload) {
    Count* count;
    std::memcpy(&count, payload + 1, sizeof(Count*));
    return count;
  }

  void count(Count& count, uint64_t packets) const {
    if (alone_) {
      const uint64_t before = count.load(std::memory_order_relaxed);
      count.store(before + packets, std::memory_order_relaxed);
    } else {
      count.fetch_add(packets, std::memory_order_relaxed);
    }
  }

  // 0 where the packet is now the inner frame, else why it is dropped.
  Gate decapsulate(Packet& packet, const OptionReader& reader, int vni_place, uint32_t& vni) const {
    const uint8_t* const data = packet.data();
    const uint32_t len = packet.len();
    Headers h = parse_headers(data, len);
    if (h.fragment || h.more_fragments) return fragment_;
    if (h.ip_proto != kProtoUdp || h.l4_off == 0 || h.dport != kGenevePort) return not_geneve_;
    const uint8_t* const udp = data + h.l4_off;
    const uint32_t udp_len = h.payload_len + kUdpBytes;
    const uint32_t ip_end = static_cast<uint32_t>(h.l3_off) + h.ip_total_len;
    // The parser cut the payload at the first of three ends; here they are one, or close to it.
    if (ip_end > len || h.l4_off + udp_len != ip_end || load_be16(udp + 4) != udp_len ||
        h.payload_len < kGeneveBytes) {
      return bad_length_;
    }
    if (h.ip_version == 4) {
      const uint8_t* const ip = data + h.l3_off;
      if (ipv4_checksum(ip, h.l3_len) != load_be16(ip + 10)) return bad_ip_sum_;
    }
    const bool no_sum = load_be16(udp + 6) == 0 && (h.ip_version == 4 || zero_checksum_);
    if (!no_sum && !udp_checksum_ok(data, h, udp_len)) return bad_udp_sum_;

    const uint64_t geneve = load_be64(udp + kUdpBytes);
    const auto first = static_cast<uint32_t>(geneve >> 32);
    const uint32_t options = (first >> 24 & 0x3f) * 4;
    if ((first & kVersionBits) != 0) return bad_version_;
    if (kGeneveBytes + options > h.payload_len) return bad_length_;
    if ((first & kControlFlag) != 0) return control_;
    const uint32_t inner = kGeneveBytes + options;
    if ((first & 0xffff) != kEtherBridging || h.payload_len - inner < kInnerEthernetBytes) {
      return not_ethernet_;
    }
    const uint8_t* const option = udp + kUdpBytes + kGeneveBytes;
    const OptionReader::Result read = reader.read(packet, option, options);
    if (read != OptionReader::kRead) {
      return read == OptionReader::kBad ? bad_option_ : critical_;
    }
    vni = static_cast<uint32_t>(geneve) >> 8;
    const uint32_t in_attr = __builtin_bswap32(vni);
    write_attr(packet, vni_place, &in_attr, sizeof in_attr);
    packet.trim(len - ip_end);
    packet.adj(h.payload_off + inner);
    return 0;
  }

  // Of a UDP datagram as long as it claims, whose checksum is not left out.
  static bool udp_checksum_ok(const uint8_t* data, const Headers& h, uint32_t udp_len) {
    if (h.ip_version == 6 && h.l3_len != kIpv6Bytes) return l4_checksum_ok(data, h);
    const uint8_t* const ip = data + h.l3_off;
    const uint64_t sum =
        h.ip_version == 4 ? ones_add_bytes(0, ip + 12, 8) : ones_add_bytes(0, ip + 8, 32);
    const uint64_t pseudo = __builtin_bswap32(kProtoUdp + udp_len);
    const uint8_t* const udp = data + h.l4_off;
    return load_be16(udp + 6) != 0 &&
           ones_fold(sum + pseudo + ones_of_long(udp, udp_len)) == 0xffff;
  }

  Status set_default(const Args& arg, const std::string& where) {
    Gate gate = 0;
    Status status = read_gate(arg, where, default_drop_, gate);
    if (status.ok()) default_gate_.store(gate, std::memory_order_relaxed);
    return status;
  }

  Status read_edges(const Args& args, const std::string& where,
                    std::map<uint32_t, Gate>& gates) const {
    for (const auto& entry : args.as_map()) {
      const std::string& key = entry.first;
      const bool digits = key.find_first_not_of("0123456789") == std::string::npos;
      if (key.empty() || key.size() > 8 || !digits || std::stoul(key) > kMaxVni) {
        return Status::invalid(where + ": '" + key + "' must be an edge id within 0..16777215");
      }
      const auto vni = static_cast<uint32_t>(std::stoul(key));
      Status status = read_gate(entry.second, where + "[" + key + "]", edge_drop_, gates[vni]);
      if (!status.ok()) return status;
    }
    if (gates.size() > kMaxEdges) {
      return Status::invalid(where + ": has more than " + std::to_string(kMaxEdges) + " edges");
    }
    return {};
  }

  Status change_edges(const Args& args, const std::string& where) {
    std::map<uint32_t, Gate> gates;
    Status status = read_edges(args, where, gates);
    if (status.ok()) apply(gates, false);
    return status;
  }

  // With `replace`, packets meet no other edges afterwards, and who called may erase them.
  void apply(const std::map<uint32_t, Gate>& gates, bool replace) {
    for (const auto& entry : gates) edges_[entry.first].gate = entry.second;
    table_.change([&](Table& table) {
      if (replace) table.edges.clear();
      for (const auto& entry : gates) {
        const uint64_t key = entry.first;
        bool created = false;
        uint64_t* const payload = table.edges.insert(&key, created);
        Count* const count = &edges_[entry.first].packets;
        payload[0] = entry.second;
        std::memcpy(payload + 1, &count, sizeof(Count*));
      }
    });
  }

  std::vector<TunnelOption> options_;
  std::map<uint32_t, Edge> edges_;  // as commands gave them, with the counts
  Live<Table> table_;
  Count other_{0};
  std::atomic<Gate> default_gate_{0};
  bool has_vni_attr_ = false;
  bool zero_checksum_ = false;
  bool alone_ = false;  // one worker runs this: nobody else counts
  Gate not_geneve_ = 0;
  Gate fragment_ = 0;
  Gate bad_length_ = 0;
  Gate bad_ip_sum_ = 0;
  Gate bad_udp_sum_ = 0;
  Gate bad_version_ = 0;
  Gate control_ = 0;
  Gate not_ethernet_ = 0;
  Gate bad_option_ = 0;
  Gate critical_ = 0;
  Gate edge_drop_ = 0;
  Gate default_drop_ = 0;
};

const ModuleClass kClass = {
    "TunnelDecap",
    "tunnel_decap",
    "takes frames out of a Geneve tunnel, to the gates of their edges",
    "TunnelDecapArg",
    1,
    kMaxGates,
    {{"set_edges", "TunnelDecapCommandEdgesArg", "EmptyArg", true,
      command(&TunnelDecap::set_edges)},
     {"add_edges", "TunnelDecapCommandEdgesArg", "EmptyArg", true,
      command(&TunnelDecap::add_edges)},
     {"remove_edges", "TunnelDecapCommandRemoveEdgesArg", "EmptyArg", true,
      command(&TunnelDecap::remove_edges)},
     {"set_default_gate", "TunnelDecapCommandSetDefaultGateArg", "EmptyArg", true,
      command(&TunnelDecap::set_default_gate)},
     {"get_stats", "TunnelDecapCommandGetStatsArg", "TunnelDecapCommandGetStatsResponse", true,
      command(&TunnelDecap::get_stats)}},
    make_module<TunnelDecap>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
