// SPDX-License-Identifier: BSD-3-Clause
// StatefulFirewall: passes TCP connections that it has seen from their start on.
//
// A connection is two endpoints, each an address and a port, in either direction. It begins with a
// SYN (without ACK, FIN and RST), from whichever side; from then on all its segments pass, both
// ways. A segment of no connection that is no such SYN is dropped. A connection ends `linger_ms`
// after the segment that closed it, a RST or the second of the FINs of both sides: until then late
// segments pass, but don't make it linger any longer. One that nobody closes ends `timeout_ms`
// after its last segment. A SYN on a connection of which a FIN or RST was seen begins it anew.
//
// All that is not TCP passes. Fragments of TCP segments are dropped: only the first has ports. An
// IPDefrag in front puts those of IPv4 together. VLAN tags and IPv6 extension headers are looked
// through; tags are no part of a connection. Packets that pass are unchanged.
//
// Family: network functions
// Gates: in 1, out 1.
// Arguments: StatefulFirewallArg
// Commands:
//   get_status  connections, and packets dropped by each reason; a batch in flight may be missing
// Metadata: none.
// Drop reasons:
//   "mid-connection"  TCP that is not seen from its start: not a SYN, and of no connection
//   "table full"      a SYN, for whose connection there is no room
//   "bad segment"     the TCP header is cut short, or its data offset is below 5 or past the end;
//                     or there may be TCP behind a header that can't be read: an Ethernet or IP
//                     header that is cut short or breaks its rules, more than 8 IPv6 extension
//                     headers
//   "fragment"        TCP, in pieces
// Limits: one worker. Both directions must come here. Sequence numbers aren't looked at, so whoever
// can forge a segment of a connection can close it. A connection that nobody answers has its place
// for `timeout_ms`, too, so a flood of SYNs fills the table. Inside of tunnels, MPLS and more than
// 8 VLAN tags nobody looks for TCP. Where both endpoints of a connection are one, FINs don't close
// it.
// Method: FlowSteer's table, in which batches look up in stages with prefetch; memory is taken at
// creation, 74 bytes per connection of `flows`. A connection that is looked up ends on time; the
// others give back their places as FlowSteer's flows do.
// Origin: original to this project.
#include "host/headers.h"
#include "host/module.h"
#include "modules/flow_affinity.h"
#include "modules/flow_aging.h"
#include "modules/flow_table.h"

namespace e2 {
namespace {

constexpr uint64_t kDefaultTimeoutMs = 300'000;
constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kAck = 16;
constexpr uint8_t kBothEnds = 3;  // of FlowEntry::ends
constexpr Gate kPass = 0;

bool starts(uint8_t tcp_flags) { return (tcp_flags & (kFin | kSyn | kRst | kAck)) == kSyn; }

class StatefulFirewall final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    mid_connection_ = add_drop_reason("mid-connection");
    table_full_ = add_drop_reason("table full");
    bad_segment_ = add_drop_reason("bad segment");
    fragment_ = add_drop_reason("fragment");
    Status status = affinity_.init({}, true, "StatefulFirewall");
    if (status.ok()) status = aging_.init(args, "StatefulFirewall", kDefaultTimeoutMs);
    if (status.ok()) status = FlowAging::make_table(args, "StatefulFirewall", "flows", table_);
    return status;
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const uint64_t now = aging_.advance(ctx.now_ns);
    aging_.sweep_in_time(table_, now, [this](uint32_t at) { table_.remove(at); });

    FlowKey keys[kMaxBatch];
    uint64_t places[kMaxBatch];
    uint8_t tcp_flags[kMaxBatch];
    Gate gates[kMaxBatch];
    PacketMask segments = 0;
    PacketMask reverse = 0;
    for (uint32_t i = 0; i < batch.size; ++i) {
      const uint8_t* data = batch[i]->data();
      Headers h = parse_headers(data, batch[i]->len());
      gates[i] = check(h);
      if (h.ip_proto != kProtoTcp || gates[i] != kPass) continue;
      segments |= PacketMask{1} << i;
      reverse |= static_cast<PacketMask>(affinity_.load<true>(data, h, keys[i])) << i;
      tcp_flags[i] = h.tcp_flags;
      places[i] = table_.place(keys[i]);
      table_.prefetch_bucket(places[i]);
    }
    uint32_t found[kMaxBatch];
    for (PacketMask left = segments; left != 0; left &= left - 1) {
      const auto i = static_cast<uint32_t>(__builtin_ctz(left));
      found[i] = table_.first_candidate(places[i]);
      if (found[i] != FlowTable::kNone) table_.prefetch_entry(keys[i], found[i]);
    }
    for (PacketMask left = segments; left != 0; left &= left - 1) {
      const auto i = static_cast<uint32_t>(__builtin_ctz(left));
      uint32_t at = found[i];
      if (at == FlowTable::kNone || !table_.same(keys[i], at) || !aging_.alive(table_[at], now)) {
        at = find(keys[i], places[i], now);
      }
      if (at == FlowTable::kNone) {
        gates[i] = starts(tcp_flags[i]) ? add(keys[i], places[i], now) : drop_gate(mid_connection_);
      } else {
        follow(table_[at], tcp_flags[i], (reverse >> i & 1) != 0, now);
      }
    }
    emit_by_gate(ctx, batch, gates);
  }

  Status get_status(const Args&, Args& response) {
    const uint64_t now = aging_.now_ns();
    uint64_t connections = 0;
    for (uint32_t at = 0; at < table_.end(); ++at) {
      const FlowEntry& entry = table_[at];
      connections += entry.state != 0 && aging_.alive(entry, now);
    }
    response.set("connections", connections);
    response.set("begun", static_cast<uint64_t>(begun_));
    response.set("mid_connection_packets", drops(mid_connection_));
    response.set("table_full_packets", drops(table_full_));
    response.set("bad_segment_packets", drops(bad_segment_));
    response.set("fragment_packets", drops(fragment_));
    return {};
  }

  std::string description() const override {
    return std::to_string(table_.size()) + " connections, " + std::to_string(begun_) + " begun";
  }

 private:
  // What a packet's headers alone decide.
  Gate check(const Headers& h) const {
    if (h.ip_version == 0) return ip_is_cut(h) ? drop_gate(bad_segment_) : kPass;
    if (h.l3_len == 0) return drop_gate(bad_segment_);
    if (h.ip_proto != kProtoTcp) return kPass;
    if (h.fragment || h.more_fragments) return drop_gate(fragment_);
    return h.payload_off == 0 ? drop_gate(bad_segment_) : kPass;
  }

  // A connection that goes on; kNone where there is none, or it has ended.
  uint32_t find(const FlowKey& key, uint64_t place, uint64_t now) {
    const uint32_t at = table_.find(key, place);
    if (at == FlowTable::kNone || aging_.alive(table_[at], now)) return at;
    table_.remove(at);
    return FlowTable::kNone;
  }

  Gate add(const FlowKey& key, uint64_t place, uint64_t now) {
    const auto end = [this](uint32_t ended) { table_.remove(ended); };
    if (!aging_.has_room(table_, now, end)) return drop_gate(table_full_);
    begin(table_[table_.add(key, place, 0)], now);
    return kPass;
  }

  void begin(FlowEntry& entry, uint64_t now) {
    entry.used_ns = now;
    entry.ends = 0;
    entry.state = FlowEntry::kUsed;
    begun_ = begun_ + 1;
  }

  void follow(FlowEntry& entry, uint8_t tcp_flags, bool reverse, uint64_t now) {
    if (starts(tcp_flags) && entry.ends != 0) {
      begin(entry, now);
      return;
    }
    if ((entry.state & FlowEntry::kClosing) != 0) return;
    entry.used_ns = now;
    if ((tcp_flags & kFin) != 0) entry.ends |= static_cast<uint8_t>(reverse ? 2 : 1);
    if ((tcp_flags & kRst) != 0) entry.ends = kBothEnds;
    if (entry.ends == kBothEnds) entry.state = FlowEntry::kUsed | FlowEntry::kClosing;
  }

  FlowAffinity affinity_;
  FlowAging aging_;
  FlowTable table_;
  Field<uint64_t> begun_{};
  uint32_t mid_connection_ = 0;
  uint32_t table_full_ = 0;
  uint32_t bad_segment_ = 0;
  uint32_t fragment_ = 0;
};

const ModuleClass kClass = {
    "StatefulFirewall",
    "stateful_firewall",
    "passes TCP connections that it has seen from their start on",
    "StatefulFirewallArg",
    1,
    1,
    {{"get_status", "StatefulFirewallCommandGetStatusArg",
      "StatefulFirewallCommandGetStatusResponse", true, command(&StatefulFirewall::get_status)}},
    make_module<StatefulFirewall>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
