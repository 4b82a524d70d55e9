// SPDX-License-Identifier: BSD-3-Clause
// NAT: translates internal IPv4 endpoints to external ones and back (RFC 4787).
//
// An endpoint is protocol, address, and TCP port, UDP port or identifier of an ICMP echo. The first
// forward packet of an internal endpoint maps it to a free external one, whatever the destination
// (endpoint-independent mapping), and anybody may answer (endpoint-independent filtering). An
// internal address always takes the same external address. Ports below 1024 map to ports below
// 1024, others to others, identifiers to any; TCP and UDP port 0 is never used.
//
// A mapping ends 120 s after its last forward packet; reverse packets do not keep it (RFC 4787
// REQ-6). It ends on the clock of the context, at the next packet that could use it or its port.
// VLAN tags are looked through. Checksums are updated incrementally: wrong ones stay wrong, no UDP
// checksum stays none.
//
// Family: headers
// Gates: in 2, out 2. Input 0 is forward (internal to external, source rewritten) and leaves by
// output 1; input 1 is reverse (external to internal, destination rewritten) and leaves by output
// 0. So output 0 and input 0 are the internal side, and the pair of number 1 is the external one.
// Arguments: NATArg
// Commands:
//   get_initial_arg     the arguments as they were given
//   get_runtime_config  nothing: mappings are not saved
//   set_runtime_config  takes nothing and changes nothing
// Metadata: none.
// Drop reasons:
//   "not translatable"  not IPv4, not TCP, UDP or ICMP echo, port 0, a header cut short, any
//                       fragment
//   "no mapping"        reverse, and nobody has that endpoint
//   "no free port"      none is left, or all 65536 mappings of the module are in use
// Limits: all tasks that lead here must run on one worker, both directions alike. No hairpinning,
// no addresses inside payloads, no ICMP errors.
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>
#include <random>

#include "host/module.h"
#include "modules/addresses.h"
#include "modules/checksum_change.h"
#include "modules/nat_table.h"

namespace e2 {
namespace {

constexpr uint64_t kIdleNs = 120ULL * 1000 * 1000 * 1000;
constexpr size_t kMaxAddresses = 256;
constexpr uint32_t kPrivilegedEnd = 1024;
constexpr uint32_t kSweepPerBatch = 2 * kMaxBatch;  // twice what a batch can add
constexpr uint32_t kSweepWhenFull = 1024;
constexpr uint32_t kIcmpHeaderBytes = 8;

struct PortRange {
  uint32_t begin;
  uint32_t end;
};

struct ExternalAddress {
  uint32_t address = 0;
  std::vector<PortRange> ranges;  // without suspended ones
  PortSet taken[3];               // TCP, UDP, ICMP

  PortSet& ports(uint8_t proto) {
    return taken[proto == kProtoTcp ? 0 : proto == kProtoUdp ? 1 : 2];
  }
};

// The endpoint that a packet has on the side to translate; 0 where it cannot be translated.
Endpoint read_endpoint(const uint8_t* data, const Headers& headers, bool forward) {
  if (headers.ip_version != 4 || headers.l4_off == 0) return 0;
  if (headers.fragment || headers.more_fragments) return 0;
  const uint32_t address = load_be32(data + headers.l3_off + (forward ? 12 : 16));
  if (headers.ip_proto == kProtoTcp || headers.ip_proto == kProtoUdp) {
    const uint16_t port = forward ? headers.sport : headers.dport;
    return port == 0 ? 0 : make_endpoint(address, port, headers.ip_proto);
  }
  if (headers.ip_proto != kProtoIcmp) return 0;
  const uint8_t* icmp = data + headers.l4_off;
  if ((icmp[0] != 8 && icmp[0] != 0) || icmp[1] != 0) return 0;
  return make_endpoint(address, load_be16(icmp + 4), kProtoIcmp);
}

// Where the headers of a packet are that can be translated.
struct Spot {
  uint16_t l3_off;
  uint16_t l4_off;
};

void rewrite(uint8_t* data, Spot spot, bool forward, const MappingTable::Mapping& mapping) {
  uint8_t* ip = data + spot.l3_off;
  uint8_t* l4 = data + spot.l4_off;
  const Side side = forward ? kInternal : kExternal;
  const Endpoint after = mapping.endpoint[1 - side];
  const uint32_t address_change = mapping.address_change[side];
  const uint32_t port_change = mapping.port_change[side];
  store_be32(ip + (forward ? 12 : 16), address_of(after));
  update_checksum(ip + 10, address_change);
  if (proto_of(after) == kProtoIcmp) {  // no pseudo header
    store_be16(l4 + 4, port_of(after));
    update_checksum(l4 + 2, port_change);
    return;
  }
  store_be16(l4 + (forward ? 0 : 2), port_of(after));
  if (proto_of(after) == kProtoTcp) {
    update_checksum(l4 + 16, address_change + port_change);
  } else {
    update_udp_checksum(l4 + 6, address_change + port_change);
  }
}

class NAT final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    not_translatable_ = drop_gate(add_drop_reason("not translatable"));
    no_mapping_ = drop_gate(add_drop_reason("no mapping"));
    no_free_port_ = drop_gate(add_drop_reason("no free port"));
    const Args::List& addresses = args["ext_addrs"].as_list();
    if (addresses.empty() || addresses.size() > kMaxAddresses) {
      return Status::invalid("NAT.ext_addrs has " + std::to_string(addresses.size()) +
                             " addresses; must have 1 to " + std::to_string(kMaxAddresses));
    }
    addresses_.resize(addresses.size());
    for (size_t i = 0; i < addresses.size(); ++i) {
      Status status = read_address(addresses[i], i);
      if (!status.ok()) return status;
    }
    initial_arg_ = args;
    std::random_device random;
    table_.init(static_cast<uint64_t>(random()) << 32 | random());
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate in_gate) override {
    const bool forward = in_gate == 0;
    const Side side = forward ? kInternal : kExternal;
    const Gate out_gate = forward ? 1 : 0;
    expire(ctx.now_ns, kSweepPerBatch);

    Spot spots[kMaxBatch];
    Endpoint before[kMaxBatch];
    uint32_t buckets[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      const Packet& packet = *batch[i];
      Headers h = parse_headers(packet.data(), packet.len());
      if (h.ip_proto == kProtoIcmp && h.l4_off != 0 && h.l4_off + kIcmpHeaderBytes > packet.len()) {
        h.l4_off = 0;
      }
      spots[i] = {h.l3_off, h.l4_off};
      before[i] = read_endpoint(packet.data(), h, forward);
      buckets[i] = table_.bucket(before[i]);
      table_.prefetch_head(side, buckets[i]);
    }
    for (uint32_t i = 0; i < batch.size; ++i) table_.prefetch_first(side, buckets[i]);

    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      if (before[i] == 0) {
        gates[i] = not_translatable_;
        continue;
      }
      uint32_t found = table_.find(side, buckets[i], before[i]);
      if (found != MappingTable::kNone && expired(found, ctx.now_ns)) {
        forget(found);
        found = MappingTable::kNone;
      }
      if (found == MappingTable::kNone && forward) {
        found = create(ctx, before[i]);
      } else if (forward) {
        table_.touch(found, ctx.now_ns);
      }
      if (found == MappingTable::kNone) {
        gates[i] = forward ? no_free_port_ : no_mapping_;
        continue;
      }
      rewrite(batch[i]->data(), spots[i], forward, table_[found]);
      gates[i] = out_gate;
    }
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override { return std::to_string(table_.size()) + " mappings"; }

  Status get_initial_arg(const Args&, Args& response) {
    response = initial_arg_;
    return {};
  }
  Status runtime_config(const Args&, Args&) { return {}; }

 private:
  Status read_address(const Args& arg, size_t index) {
    const std::string where = "NAT.ext_addrs[" + std::to_string(index) + "]";
    ExternalAddress& external = addresses_[index];
    Status status = read_ipv4(arg["ext_addr"], where + ".ext_addr", external.address);
    if (!status.ok()) return status;
    for (size_t i = 0; i < index; ++i) {
      if (addresses_[i].address != external.address) continue;
      return Status::invalid(where + ".ext_addr is " + arg["ext_addr"].as_string() +
                             ", as is ext_addrs[" + std::to_string(i) +
                             "]; list each address once");
    }
    const Args::List& ranges = arg["port_ranges"].as_list();
    if (ranges.empty()) external.ranges.push_back({0, PortSet::kPorts - 1});
    for (size_t i = 0; i < ranges.size(); ++i) {
      const uint64_t begin = ranges[i]["begin"].as_uint();
      const uint64_t end = ranges[i]["end"].as_uint();
      if (begin >= end || end > PortSet::kPorts) {
        return Status::invalid(where + ".port_ranges[" + std::to_string(i) + "] is " +
                               std::to_string(begin) + " to " + std::to_string(end) +
                               "; begin must be below end, and end at most 65536");
      }
      if (ranges[i]["suspended"].as_bool()) continue;
      external.ranges.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    }
    // Port 0 is an identifier like any other for ICMP, but no port.
    external.ports(kProtoTcp).take(0);
    external.ports(kProtoUdp).take(0);
    return {};
  }

  bool expired(uint32_t i, uint64_t now_ns) { return table_[i].used_ns + kIdleNs <= now_ns; }

  void forget(uint32_t i) {
    const Endpoint external = table_[i].endpoint[kExternal];
    addresses_[table_[i].address].ports(proto_of(external)).give_back(port_of(external));
    table_.remove(i);
  }

  // Forgets up to `limit` mappings, those idle for longest first.
  uint32_t expire(uint64_t now_ns, uint32_t limit) {
    uint32_t count = 0;
    while (count < limit && table_.oldest() != MappingTable::kNone &&
           expired(table_.oldest(), now_ns)) {
      forget(table_.oldest());
      ++count;
    }
    return count;
  }

  uint32_t create(Context& ctx, Endpoint internal) {
    const uint32_t index = pick_address(address_of(internal));
    ExternalAddress& address = addresses_[index];
    uint32_t port = table_.full() ? PortSet::kPorts : find_port(ctx, address, internal);
    if (port == PortSet::kPorts && expire(ctx.now_ns, kSweepWhenFull) != 0) {
      port = find_port(ctx, address, internal);
    }
    if (port == PortSet::kPorts) return MappingTable::kNone;
    const uint8_t proto = proto_of(internal);
    address.ports(proto).take(port);
    return table_.add(internal, make_endpoint(address.address, port, proto), index, ctx.now_ns);
  }

  uint32_t pick_address(uint32_t internal) const {
    const uint64_t hashed = (internal * 0x9e3779b97f4a7c15ULL) >> 32;
    return static_cast<uint32_t>(hashed * addresses_.size() >> 32);
  }

  // A free port of the internal port's class, from a random place on; PortSet::kPorts where there
  // is none.
  uint32_t find_port(Context& ctx, ExternalAddress& address, Endpoint internal) {
    const bool any = proto_of(internal) == kProtoIcmp;
    const bool privileged = port_of(internal) < kPrivilegedEnd;
    const PortSet& ports = address.ports(proto_of(internal));
    for (const PortRange& range : address.ranges) {
      const uint32_t begin =
          any || privileged ? range.begin : std::max(range.begin, kPrivilegedEnd);
      const uint32_t end = any || !privileged ? range.end : std::min(range.end, kPrivilegedEnd);
      if (begin >= end) continue;
      const uint32_t start = begin + ctx.random.below(end - begin);
      const uint32_t upper = ports.first_free(start, end);
      if (upper != end) return upper;
      const uint32_t lower = ports.first_free(begin, start);
      if (lower != start) return lower;
    }
    return PortSet::kPorts;
  }

  MappingTable table_;
  std::vector<ExternalAddress> addresses_;
  Args initial_arg_;
  Gate not_translatable_ = 0;
  Gate no_mapping_ = 0;
  Gate no_free_port_ = 0;
};

const ModuleClass kClass = {
    "NAT",
    "nat",
    "translates IPv4 addresses and ports",
    "NATArg",
    2,
    2,
    {{"get_initial_arg", "EmptyArg", "NATArg", true, command(&NAT::get_initial_arg)},
     {"get_runtime_config", "EmptyArg", "EmptyArg", true, command(&NAT::runtime_config)},
     {"set_runtime_config", "EmptyArg", "EmptyArg", true, command(&NAT::runtime_config)}},
    make_module<NAT>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
