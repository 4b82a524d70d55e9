// SPDX-License-Identifier: BSD-3-Clause
// StaticNAT: maps ranges of IPv4 addresses to others of the same size and back, without state.
//
// Forward packets have their source mapped from `int_range` to `ext_range`, reverse ones their
// destination from `ext_range` to `int_range`; the first pair that holds the address counts. All
// other packets pass unchanged, IPv6 among them. VLAN tags are looked through, and fragments are
// mapped alike. Checksums of IPv4, TCP and UDP are updated incrementally: wrong ones stay wrong, no
// UDP checksum stays none.
//
// Family: headers
// Gates: in 2, out 2. Input 0 is forward and leaves by output 1; input 1 is reverse and leaves by
// output 0.
// Arguments: StaticNATArg
// Commands:
//   get_initial_arg     the arguments as they were given
//   get_runtime_config  nothing: there is no state
//   set_runtime_config  takes nothing and changes nothing
// Metadata: none.
// Drop reasons:
//   "packet too short"  no whole Ethernet, IPv4, TCP or UDP header
// Limits: pairs are tried one after another, so some dozens are fine and thousands slow. No
// addresses inside payloads, ICMP errors included.
// Origin: the module of this name in BESS, which knows no VLAN tags; the code is new.
#include "host/module.h"
#include "modules/addresses.h"
#include "modules/checksum_change.h"

namespace e2 {
namespace {

constexpr size_t kMaxPairs = 65536;
constexpr uint32_t kBroadcast = 0xffffffff;

struct Range {
  uint32_t start = 0;
  uint32_t last = 0;  // from start on
};

class StaticNat final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    too_short_ = drop_gate(add_drop_reason("packet too short"));
    const Args::List& pairs = args["pairs"].as_list();
    if (pairs.size() > kMaxPairs) {
      return Status::invalid("StaticNAT.pairs has " + std::to_string(pairs.size()) +
                             " entries; must have at most " + std::to_string(kMaxPairs));
    }
    for (size_t i = 0; i < pairs.size(); ++i) {
      const std::string where = "StaticNAT.pairs[" + std::to_string(i) + "]";
      Range internal;
      Range external;
      Status status = read_range(pairs[i]["int_range"], where + ".int_range", internal);
      if (status.ok()) status = read_range(pairs[i]["ext_range"], where + ".ext_range", external);
      if (!status.ok()) return status;
      if (internal.last != external.last) {
        return Status::invalid(where + " maps " + std::to_string(internal.last + 1ULL) +
                               " addresses to " + std::to_string(external.last + 1ULL) +
                               "; both ranges must have the same size");
      }
      ranges_[kForward].push_back(internal);
      ranges_[kReverse].push_back(external);
    }
    initial_arg_ = args;
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate in_gate) override {
    const uint32_t way = in_gate == 0 ? kForward : kReverse;
    const Gate out_gate = in_gate == 0 ? 1 : 0;
    const Range* const from = ranges_[way].data();
    const Range* const to = ranges_[1 - way].data();
    const size_t count = ranges_[way].size();
    const uint32_t address_at = way == kForward ? 12 : 16;
    emit_each(ctx, batch, [=](Packet& packet) {
      uint8_t* data = packet.data();
      Headers h = parse_headers(data, packet.len());
      if (h.ip_version != 4) {
        return ipv4_is_cut(h) ? too_short_ : out_gate;
      }
      const bool summed = (h.ip_proto == kProtoTcp || h.ip_proto == kProtoUdp) && !h.fragment;
      if (summed && h.l4_off == 0) return too_short_;
      const uint32_t before = load_be32(data + h.l3_off + address_at);
      for (size_t i = 0; i < count; ++i) {
        const uint32_t distance = before - from[i].start;
        if (distance > from[i].last) continue;
        const uint32_t after = to[i].start + distance;
        const uint32_t change = change32(before, after);
        store_be32(data + h.l3_off + address_at, after);
        update_checksum(data + h.l3_off + 10, change);
        if (summed && h.ip_proto == kProtoTcp) update_checksum(data + h.l4_off + 16, change);
        if (summed && h.ip_proto == kProtoUdp) update_udp_checksum(data + h.l4_off + 6, change);
        break;
      }
      return out_gate;
    });
  }

  std::string description() const override {
    return std::to_string(ranges_[kForward].size()) + " pairs";
  }

  Status get_initial_arg(const Args&, Args& response) {
    response = initial_arg_;
    return {};
  }
  Status runtime_config(const Args&, Args&) { return {}; }

 private:
  enum Way : uint32_t { kForward = 0, kReverse = 1 };

  static Status read_range(const Args& args, const std::string& where, Range& range) {
    uint32_t end = 0;
    Status status = read_ipv4(args["start"], where + ".start", range.start);
    if (status.ok()) status = read_ipv4(args["end"], where + ".end", end);
    if (!status.ok()) return status;
    if (range.start > end || end == kBroadcast) {
      return Status::invalid(where + " is " + args["start"].as_string() + " to " +
                             args["end"].as_string() +
                             "; must end at its start or later, and before 255.255.255.255");
    }
    range.last = end - range.start;
    return {};
  }

  std::vector<Range> ranges_[2];  // to look for, by direction; a pair has the same place in both
  Args initial_arg_;
  Gate too_short_ = 0;
};

const ModuleClass kClass = {
    "StaticNAT",
    "static_nat",
    "maps ranges of IPv4 addresses to others and back",
    "StaticNATArg",
    2,
    2,
    {{"get_initial_arg", "EmptyArg", "StaticNATArg", true, command(&StaticNat::get_initial_arg)},
     {"get_runtime_config", "EmptyArg", "EmptyArg", true, command(&StaticNat::runtime_config)},
     {"set_runtime_config", "EmptyArg", "EmptyArg", true, command(&StaticNat::runtime_config)}},
    make_module<StaticNat>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
