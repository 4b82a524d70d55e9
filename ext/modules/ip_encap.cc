// SPDX-License-Identifier: BSD-3-Clause
// IPEncap: puts an IPv4 header in front of packets.
//
// The header: 20 bytes, TOS 0, ID 0, "don't fragment", TTL 64, a right checksum.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: IPEncapArg
// Commands: none.
// Metadata: reads ip_src (4 bytes), ip_dst (4), ip_proto (1); writes ip_nexthop (4, the value of
// ip_dst) and ether_type (2, 0x0800). All in network order.
// Drop reasons:
//   "no headroom"      the buffer has no 20 bytes left in front of the packet
//   "packet too long"  with the header it would be longer than 65535 bytes
// Origin: the module of this name in BESS, which leaves the ID undefined and lets packets pass
// without the header where there is no headroom; the code is new.
#include "host/headers.h"
#include "host/module.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

constexpr uint32_t kIpv4Bytes = 20;
constexpr uint16_t kDontFragment = 0x4000;
constexpr uint8_t kTtl = 64;

class IpEncap final : public Module {
 public:
  Status init(Host&, const Args&) override {
    no_headroom_ = add_drop_reason("no headroom");
    too_long_ = add_drop_reason("packet too long");
    src_ = add_attr("ip_src", 4, Access::kRead);
    dst_ = add_attr("ip_dst", 4, Access::kRead);
    proto_ = add_attr("ip_proto", 1, Access::kRead);
    nexthop_ = add_attr("ip_nexthop", 4, Access::kWrite);
    type_ = add_attr("ether_type", 2, Access::kWrite);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    emit_each(ctx, batch, [this](Packet& packet) { return encapsulate(packet); });
  }

 private:
  Gate encapsulate(Packet& packet) const {
    const uint32_t total = packet.len() + kIpv4Bytes;
    if (total > 0xffff) return drop_gate(too_long_);
    uint8_t* ip = packet.prepend(kIpv4Bytes);
    if (ip == nullptr) return drop_gate(no_headroom_);
    ip[0] = 0x45;
    ip[1] = 0;
    store_be16(ip + 2, static_cast<uint16_t>(total));
    store_be16(ip + 4, 0);
    store_be16(ip + 6, kDontFragment);
    ip[8] = kTtl;
    read_attr(packet, attr_offset(proto_), ip + 9, 1);
    store_be16(ip + 10, 0);
    read_attr(packet, attr_offset(src_), ip + 12, 4);
    read_attr(packet, attr_offset(dst_), ip + 16, 4);
    store_be16(ip + 10, checksum_fold(checksum_add(ip, kIpv4Bytes)));
    const uint8_t type[2] = {kEtherIpv4 >> 8, kEtherIpv4 & 0xff};
    write_attr(packet, attr_offset(nexthop_), ip + 16, 4);
    write_attr(packet, attr_offset(type_), type, sizeof type);
    return 0;
  }

  size_t src_ = 0;
  size_t dst_ = 0;
  size_t proto_ = 0;
  size_t nexthop_ = 0;
  size_t type_ = 0;
  uint32_t no_headroom_ = 0;
  uint32_t too_long_ = 0;
};

const ModuleClass kClass = {
    "IPEncap", "ip_encap",          "encapsulates packets with an IPv4 header", "IPEncapArg", 1, 1,
    {},        make_module<IpEncap>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
