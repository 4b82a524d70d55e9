// SPDX-License-Identifier: BSD-3-Clause
// NAT: translates internal endpoints of IPv4 and IPv6 to external ones and back (RFC 4787).
//
// An endpoint is protocol, address, and TCP port, UDP port or identifier of an ICMP or ICMPv6 echo.
// The first forward packet of an internal endpoint maps it to a free external one of its family,
// whatever the destination (endpoint-independent mapping), and anybody may answer
// (endpoint-independent filtering). An internal address always takes the same external address.
// Ports below 1024 map to ports below 1024, others to others, identifiers to any; TCP and UDP port
// 0 is never used. With `encrypted_ports` internal ports are numbers without a meaning: 0 is one
// like others, and all map to any.
//
// A mapping ends 120 s after its last forward packet; reverse packets do not keep it (RFC 4787
// REQ-6). It ends on the clock of the context, at the next packet that could use it or its port.
// VLAN tags and IPv6 extension headers are looked through. Checksums are updated incrementally:
// wrong ones stay wrong, no UDP checksum stays none.
//
// Encrypted packets (docs/embark.md) are translated like others: give the encryptions of a pool's
// addresses, and `encrypted_ports`. Their internal endpoints differ by flow, and so do mappings.
// When a gateway changes its keys, `replace_mappings` gives mappings new internal endpoints, and
// external addresses their new encryptions. Who answers from a gateway that has the old key still
// writes the old ones: with `keep_old` reverse packets to them are translated as well, until they
// are forgotten. Only packets that would have no mapping are looked up that way.
//
// Family: headers
// Gates: in 2, out 2. Input 0 is forward (internal to external, source rewritten) and leaves by
// output 1; input 1 is reverse (external to internal, destination rewritten) and leaves by output
// 0. So output 0 and input 0 are the internal side, and the pair of number 1 is the external one.
// Arguments: NATArg
// Commands:
//   get_initial_arg     the arguments as they were given
//   get_runtime_config  nothing: get_mappings has the mappings
//   set_runtime_config  takes nothing and changes nothing
//   get_mappings        all mappings, those idle for longest first, the external addresses, and
//                       old ones that are kept
//   set_mappings        these mappings and no others, all or none: what another NAT told
//   replace_mappings    other internal endpoints for mappings, other external addresses, old ones
//                       to keep or to forget, all or none; external ports and ages stay. Mappings
//                       that have ended are counted, and no error.
// Metadata: none.
// Drop reasons:
//   "not translatable"  not IP, or of a family without external addresses; not TCP, UDP or echo,
//                       port 0, a header cut short, any fragment; reverse, on its way to another
//                       stop of a routing header
//   "no mapping"        reverse, and nobody has that endpoint
//   "no free port"      none is left, or all 65536 mappings of the family are in use
// Limits: all tasks that lead here must run on one worker, both directions alike. No hairpinning,
// no addresses inside payloads, no ICMP errors. get_mappings, set_mappings and replace_mappings
// pause the workers.
// Origin: the module of this name in BESS, which knows no IPv6; the code is new.
#include "modules/nat.h"

#include <random>

#include "modules/addresses.h"

namespace e2 {
namespace {

template <typename Family>
using Externals = std::vector<typename NatSide<Family>::External>;

Status read_ranges(const Args::List& ranges, const std::string& where,
                   std::vector<NatPortRange>& to) {
  if (ranges.empty()) to.push_back({0, PortSet::kPorts - 1});
  for (size_t i = 0; i < ranges.size(); ++i) {
    const uint64_t begin = ranges[i]["begin"].as_uint();
    const uint64_t end = ranges[i]["end"].as_uint();
    if (begin >= end || end > PortSet::kPorts) {
      return Status::invalid(where + "[" + std::to_string(i) + "] is " + std::to_string(begin) +
                             " to " + std::to_string(end) +
                             "; begin must be below end, and end at most 65536");
    }
    if (ranges[i]["suspended"].as_bool()) continue;
    to.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
  }
  return {};
}

template <typename Family>
void add_external(const std::string& bytes, std::vector<NatPortRange> ranges,
                  Externals<Family>& to) {
  typename NatSide<Family>::External external;
  external.address = Family::load(reinterpret_cast<const uint8_t*>(bytes.data()));
  external.ranges = std::move(ranges);
  to.push_back(std::move(external));
}

Status read_externals(const Args::List& list, Externals<Ipv4Family>& ipv4,
                      Externals<Ipv6Family>& ipv6) {
  if (list.empty() || list.size() > kNatMaxAddresses) {
    return Status::invalid("NAT.ext_addrs has " + std::to_string(list.size()) +
                           " addresses; must have 1 to " + std::to_string(kNatMaxAddresses));
  }
  std::vector<std::string> seen;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = "NAT.ext_addrs[" + std::to_string(i) + "]";
    const std::string& text = list[i]["ext_addr"].as_string();
    const std::string bytes = read_address(text);
    if (bytes.empty()) {
      return Status::invalid(where + ".ext_addr is \"" + text +
                             "\"; must be an IPv4 address such as 192.0.2.1, or an IPv6 address");
    }
    const auto same = std::find(seen.begin(), seen.end(), bytes);
    if (same != seen.end()) {
      return Status::invalid(where + ".ext_addr is " + text + ", as is ext_addrs[" +
                             std::to_string(same - seen.begin()) + "]; list each address once");
    }
    seen.push_back(bytes);
    std::vector<NatPortRange> ranges;
    Status status = read_ranges(list[i]["port_ranges"].as_list(), where + ".port_ranges", ranges);
    if (!status.ok()) return status;
    if (bytes.size() == Ipv4Family::kAddressBytes) {
      add_external<Ipv4Family>(bytes, std::move(ranges), ipv4);
    } else {
      add_external<Ipv6Family>(bytes, std::move(ranges), ipv6);
    }
  }
  return {};
}

}  // namespace

Status NAT::init(Host&, const Args& args) {
  drops_.not_translatable = drop_gate(add_drop_reason("not translatable"));
  drops_.no_mapping = drop_gate(add_drop_reason("no mapping"));
  drops_.no_free_port = drop_gate(add_drop_reason("no free port"));
  Externals<Ipv4Family> ipv4;
  Externals<Ipv6Family> ipv6;
  Status status = read_externals(args["ext_addrs"].as_list(), ipv4, ipv6);
  if (!status.ok()) return status;
  initial_arg_ = args;
  std::random_device random;
  const uint64_t seed = static_cast<uint64_t>(random()) << 32 | random();
  const bool encrypted_ports = args["encrypted_ports"].as_bool();
  ipv4_.init(std::move(ipv4), seed, encrypted_ports);
  ipv6_.init(std::move(ipv6), seed, encrypted_ports);
  return {};
}

void NAT::process(Context& ctx, Batch& batch, Gate in_gate) {
  const bool forward = in_gate == 0;
  now_ns_ = std::max(now_ns_, ctx.now_ns);
  Gate gates[kMaxBatch];
  if (!ipv6_.used()) {
    ipv4_.translate<false>(ctx, batch, forward, drops_, gates);
  } else if (!ipv4_.used()) {
    ipv6_.translate<false>(ctx, batch, forward, drops_, gates);
  } else {
    ipv4_.translate<false>(ctx, batch, forward, drops_, gates);
    ipv6_.translate<true>(ctx, batch, forward, drops_, gates);
  }
  emit_by_gate(ctx, batch, gates);
}

std::string NAT::description() const {
  return std::to_string(ipv4_.table().size() + ipv6_.table().size()) + " mappings";
}

namespace {

const ModuleClass kClass = {
    "NAT",
    "nat",
    "translates addresses and ports",
    "NATArg",
    2,
    2,
    {{"get_initial_arg", "EmptyArg", "NATArg", true, command(&NAT::get_initial_arg)},
     {"get_runtime_config", "EmptyArg", "EmptyArg", true, command(&NAT::runtime_config)},
     {"set_runtime_config", "EmptyArg", "EmptyArg", true, command(&NAT::runtime_config)},
     {"get_mappings", "NATCommandGetMappingsArg", "NATCommandGetMappingsResponse", false,
      command(&NAT::get_mappings)},
     {"set_mappings", "NATCommandSetMappingsArg", "EmptyArg", false, command(&NAT::set_mappings)},
     {"replace_mappings", "NATCommandReplaceMappingsArg", "NATCommandReplaceMappingsResponse",
      false, command(&NAT::replace_mappings)}},
    make_module<NAT>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
