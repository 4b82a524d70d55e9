// SPDX-License-Identifier: BSD-3-Clause
// FlowSteer: sends flows to gates by ranges of their ids, and keeps a flow at its gate.
//
// The flow id of a packet is a number below 2^32: a hash of what its affinity leaves of the
// 5-tuple, the same in every FlowSteer with that affinity. Ranges cover all ids without overlap,
// each with a gate. The first packet of a flow takes the gate of its range, and so do all that
// follow until the flow ends: `timeout_ms` after its last packet, or `linger_ms` after it where the
// connection has ended (RST, or FIN in both directions; without `symmetric`, where a flow is one
// direction, one FIN). Ends of connections count only where the affinity is the whole 5-tuple.
//
// `split` gives a part of a range to another gate without moving a flow: those that are active
// become exceptions, which keep their gate above the range. As flows end, so do their
// exceptions; an event tells when few are left, so that the rest fits a hardware switch. A cut at
// the start of a range drains it. `update` does move flows: all that are no exceptions follow the
// new ranges. Exceptions that `update` adds last as long as their flows do, too, and begin now.
//
// With `id_attr` the ids come with the packets: a switch has computed them and written them into
// VLAN tags, whose 16 bits a SetMetadata upstream copied into that attribute. The id is the low 12
// bits times 2^20, so that ranges still cover all of [0, 2^32); a cut acts as the next multiple of
// 2^20. A flow keeps the id of its first packet, whatever later ones carry; with `symmetric`, those
// of either direction. An exception that `update` adds before its flow's first packet has no id
// until then, and needs none: new ranges and splits leave exceptions of `update` alone. get_status
// counts it at its gate, get_flows lists it without an id. Removed before that packet, it is
// forgotten, for its range is unknown: the packet begins a flow, in its range.
//
// A full table is no error: packets of flows that find no place take the gate of their range, are
// counted as untracked, and may move at the next split or update.
//
// Family: distribution
// Gates: in 1, out 8192. A gate of 8192 drops.
// Arguments: FlowSteerArg
// Commands:
//   update      changes ranges and exceptions in one step, all or nothing
//   split       gives a part of a range to another gate; active flows stay
//   get_status  what each gate has, exactly; a batch in flight may be missing
//   get_flows   flows one by one
// Metadata: reads `id_attr` (2 bytes, network order), if it is set. Where no module upstream writes
// it in that size, workers don't start; bessd's do, and all ids are 0.
// Drop reasons:
//   "no flow"    not IP, where no `other_gate` is set
//   "gate 8192"  the range or exception has gate 8192
// Events:
//   few_exceptions  a split has fewer exceptions left than its threshold: split, gate, new_gate,
//                   cut and exceptions; told once, when flows are found to have ended: by packets
//                   that come, or by get_status
// Limits: one worker. All packets of a fragmented datagram have ports 0, so with ports in the
// affinity they are another flow than the rest of their connection. ICMP errors are no part of the
// flow that they are about. update, split and get_flows pause the workers, for about 10 ns per
// flow.
// Method: one table holds flows and exceptions; batches look it up in stages with prefetch. Memory
// is taken at creation, 74 bytes per flow of `max_flows`. A flow that is looked up ends on time; a
// hand that goes round the table about twice within the shorter timeout gives back the others, 16
// or, where it is late, 64 per batch, and 4 per new flow that meets a full table.
// Origin: flow ids, ranges and migration avoidance are E2's (Palkar et al., SOSP 2015); the code is
// original to this project.
#include "modules/flow_steer.h"

#include "modules/field_value.h"

namespace e2 {
namespace {

constexpr uint64_t kDefaultTimeoutMs = 30'000;
constexpr uint32_t kVlanIds = 0xfff;
constexpr uint32_t kVlanIdShift = 20;  // to the top of an id's 32 bits
constexpr uint8_t kTcpFin = 0x01;
constexpr uint8_t kTcpSyn = 0x02;
constexpr uint8_t kTcpRst = 0x04;

}  // namespace

Status FlowSteer::init(Host&, const Args& args) {
  const Gate no_flow = drop_gate(add_drop_reason("no flow"));
  gate_drop_ = drop_gate(add_drop_reason("gate 8192"));
  few_exceptions_ = add_event("few_exceptions", {"split", "gate", "new_gate", "cut", "exceptions"});
  Status status = aging_.init(args, "FlowSteer", kDefaultTimeoutMs);
  if (!status.ok()) return status;
  other_gate_ = no_flow;
  if (args.has("other_gate")) {
    status = read_gate(args["other_gate"], "FlowSteer.other_gate", no_flow, other_gate_);
    if (!status.ok()) return status;
  }
  const std::string& id_attr = args["id_attr"].as_string();
  has_id_attr_ = !id_attr.empty();
  if (has_id_attr_) id_attr_ = add_attr(id_attr, sizeof(uint16_t), Access::kRead);
  status =
      affinity_.init(args["affinity"].as_list(), args["symmetric"].as_bool(), "FlowSteer.affinity");
  if (!status.ok()) return status;
  status = ranges_.read(args["ranges"].as_list(), "FlowSteer.ranges", gate_drop_);
  if (status.ok()) status = FlowAging::make_table(args, "FlowSteer", "max_flows", table_);
  if (!status.ok()) return status;
  packets_ = std::make_unique<uint64_t[]>(kMaxGates + 1);
  return {};
}

void FlowSteer::process(Context& ctx, Batch& batch, Gate) {
  if (has_id_attr_) {
    affinity_.symmetric() ? steer<true, true>(ctx, batch) : steer<false, true>(ctx, batch);
  } else {
    affinity_.symmetric() ? steer<true, false>(ctx, batch) : steer<false, false>(ctx, batch);
  }
}

template <bool kSymmetric, bool kIdAttr>
void FlowSteer::steer(Context& ctx, Batch& batch) {
  const uint64_t now = aging_.advance(ctx.now_ns);
  aging_.sweep_in_time(table_, now, [this](uint32_t at) { end_flow(at); });

  FlowKey keys[kMaxBatch];
  uint64_t places[kMaxBatch];
  uint8_t tcp_flags[kMaxBatch];
  PacketMask flows = 0;
  PacketMask reverse = 0;
  const uint32_t count = batch.size;
  for (uint32_t i = 0; i < count; ++i) {
    const uint8_t* data = batch[i]->data();
    Headers h = parse_headers(data, batch[i]->len());
    if (h.ip_version == 0) continue;
    flows |= PacketMask{1} << i;
    reverse |= static_cast<PacketMask>(affinity_.load<kSymmetric>(data, h, keys[i])) << i;
    tcp_flags[i] = h.tcp_flags;
    places[i] = table_.place(keys[i]);
    table_.prefetch_bucket(places[i]);
  }
  uint32_t found[kMaxBatch];
  for (PacketMask left = flows; left != 0; left &= left - 1) {
    const auto i = static_cast<uint32_t>(__builtin_ctz(left));
    found[i] = table_.first_candidate(places[i]);
    if (found[i] != FlowTable::kNone) table_.prefetch_entry(keys[i], found[i]);
  }
  const bool ends = affinity_.one_connection();
  uint64_t* const packets = packets_.get();
  Gate gates[kMaxBatch];
  for (uint32_t i = 0; i < count; ++i) {
    if ((flows >> i & 1) == 0) {
      gates[i] = other_gate_;
      continue;
    }
    uint32_t at = found[i];
    if (at == FlowTable::kNone || !table_.same(keys[i], at) || !aging_.alive(table_[at], now)) {
      at = find_or_add<kIdAttr>(*batch[i], keys[i], places[i], now);
    }
    if (at == FlowTable::kNone) {
      gates[i] = ranges_.gate(id_of<kIdAttr>(*batch[i], keys[i]));
      untracked_ = untracked_ + 1;
    } else {
      FlowEntry& entry = table_[at];
      entry.used_ns = now;
      gates[i] = entry.gate;
      if (kIdAttr && (entry.state & FlowEntry::kNoId) != 0) {
        table_.set_id(at, id_of<kIdAttr>(*batch[i], keys[i]));
        entry.state = static_cast<uint8_t>(entry.state & ~FlowEntry::kNoId);
      }
      if (ends && (tcp_flags[i] & (kTcpFin | kTcpSyn | kTcpRst)) != 0) {
        note_ends(entry, tcp_flags[i], (reverse >> i & 1) != 0);
      }
    }
    ++packets[gate_number(gates[i])];
  }
  emit_by_gate(ctx, batch, gates);
}

// The id of a flow whose first packet this is.
template <bool kIdAttr>
uint32_t FlowSteer::id_of(const Packet& packet, const FlowKey& key) const {
  if constexpr (!kIdAttr) return key.id();
  uint8_t tag[sizeof(uint16_t)];
  read_attr(packet, attr_offset(id_attr_), tag, sizeof tag);
  return (load_be16(tag) & kVlanIds) << kVlanIdShift;
}

// The entry of a packet's flow, a new one if need be; kNone where there is no place.
template <bool kIdAttr>
uint32_t FlowSteer::find_or_add(const Packet& packet, const FlowKey& key, uint64_t place,
                                uint64_t now) {
  const uint32_t at = table_.find(key, place);
  if (at != FlowTable::kNone) {
    if (aging_.alive(table_[at], now)) return at;
    end_flow(at);
  }
  const auto end = [this](uint32_t ended) { end_flow(ended); };
  if (!aging_.has_room(table_, now, end)) return FlowTable::kNone;
  const uint32_t id = id_of<kIdAttr>(packet, key);
  return add(key, place, id, ranges_.gate(id), now);
}

uint32_t FlowSteer::add(const FlowKey& key, uint64_t place, uint32_t id, Gate gate, uint64_t now) {
  const uint32_t at = table_.add(key, place, id);
  FlowEntry& entry = table_[at];
  entry.used_ns = now;
  entry.gate = gate;
  entry.split = 0;
  entry.ends = 0;
  entry.state = FlowEntry::kUsed;
  return at;
}

void FlowSteer::note_ends(FlowEntry& entry, uint8_t tcp_flags, bool reverse) {
  uint8_t state = entry.state;
  if ((tcp_flags & kTcpSyn) != 0) {  // the endpoints begin once more
    state &= static_cast<uint8_t>(~FlowEntry::kClosing);
    entry.ends = 0;
  }
  if ((tcp_flags & kTcpFin) != 0) {
    entry.ends |= static_cast<uint8_t>(1u << static_cast<uint32_t>(reverse));
    if (entry.ends == (affinity_.symmetric() ? 3 : 1)) state |= FlowEntry::kClosing;
  }
  if ((tcp_flags & kTcpRst) != 0) state |= FlowEntry::kClosing;
  entry.state = state;
}

void FlowSteer::end_flow(uint32_t at) {
  end_exception(table_[at]);
  table_.remove(at);
}

void FlowSteer::end_exception(FlowEntry& entry) {
  entry.state = static_cast<uint8_t>(entry.state & ~FlowEntry::kException);
  if (entry.split == 0) return;
  Split& split = splits_[entry.split - 1];
  entry.split = 0;
  const uint64_t left = split.left - 1;
  split.left = left;
  if (left < split.threshold) tell(split, left);
}

void FlowSteer::tell(Split& split, uint64_t left) {
  if (split.told.exchange(true, std::memory_order_relaxed)) return;
  post_event(few_exceptions_,
             {split.number, gate_number(split.gate), gate_number(split.new_gate), split.cut, left});
}

std::string FlowSteer::description() const {
  return std::to_string(table_.size()) + " flows, " + std::to_string(untracked_) +
         " packets untracked";
}

namespace {

const ModuleClass kClass = {
    "FlowSteer",
    "flow_steer",
    "sends flows to gates by ranges of their ids, and keeps them there",
    "FlowSteerArg",
    1,
    kMaxGates,
    {{"update", "FlowSteerCommandUpdateArg", "EmptyArg", false, command(&FlowSteer::update)},
     {"split", "FlowSteerCommandSplitArg", "FlowSteerCommandSplitResponse", false,
      command(&FlowSteer::split)},
     {"get_status", "FlowSteerCommandGetStatusArg", "FlowSteerCommandGetStatusResponse", true,
      command(&FlowSteer::get_status)},
     {"get_flows", "FlowSteerCommandGetFlowsArg", "FlowSteerCommandGetFlowsResponse", false,
      command(&FlowSteer::get_flows)}},
    make_module<FlowSteer>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
