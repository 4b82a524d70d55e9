// SPDX-License-Identifier: BSD-3-Clause
// VXLANDecap: takes the outer Ethernet, IPv4, UDP and VXLAN headers off (RFC 7348).
//
// VLAN tags and IP options of the outer headers go too, and so does what follows the UDP datagram.
// The UDP port does not matter: choose the packets upstream.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: VXLANDecapArg
// Commands: none.
// Metadata: writes tun_ip_src (4 bytes), tun_ip_dst (4), tun_id (4), all in network order.
// Drop reasons:
//   "packet too short"  the outer headers are not all there
//   "not VXLAN"         not UDP over IPv4, a fragment, or without the flag that says there is a
//                       network identifier
// Origin: the module of this name in BESS, which takes every packet for VXLAN; the code is new.
#include "host/headers.h"
#include "host/module.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

constexpr uint32_t kVxlanBytes = 8;
constexpr uint8_t kVniPresent = 0x08;

class VxlanDecap final : public Module {
 public:
  Status init(Host&, const Args&) override {
    too_short_ = add_drop_reason("packet too short");
    not_vxlan_ = add_drop_reason("not VXLAN");
    src_ = add_attr("tun_ip_src", 4, Access::kWrite);
    dst_ = add_attr("tun_ip_dst", 4, Access::kWrite);
    id_ = add_attr("tun_id", 4, Access::kWrite);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const Places at = {attr_offset(src_), attr_offset(dst_), attr_offset(id_)};
    emit_each(ctx, batch, [this, at](Packet& packet) { return decapsulate(packet, at); });
  }

 private:
  struct Places {
    int src;
    int dst;
    int id;
  };

  Gate decapsulate(Packet& packet, const Places& at) const {
    const uint8_t* data = packet.data();
    Headers h = parse_headers(data, packet.len());
    if (h.ip_version != 4) {
      return drop_gate(ipv4_is_cut(h) ? too_short_ : not_vxlan_);
    }
    if (h.ip_proto != kProtoUdp || h.fragment || h.more_fragments) return drop_gate(not_vxlan_);
    if (h.l4_off == 0 || h.payload_len < kVxlanBytes) return drop_gate(too_short_);
    const uint8_t* vxlan = data + h.payload_off;
    if ((vxlan[0] & kVniPresent) == 0) return drop_gate(not_vxlan_);
    const uint32_t id = __builtin_bswap32(load_be32(vxlan + 4) >> 8);
    write_attr(packet, at.src, data + h.l3_off + 12, 4);
    write_attr(packet, at.dst, data + h.l3_off + 16, 4);
    write_attr(packet, at.id, &id, sizeof id);
    packet.trim(packet.len() - h.payload_off - h.payload_len);
    packet.adj(h.payload_off + kVxlanBytes);
    return 0;
  }

  size_t src_ = 0;
  size_t dst_ = 0;
  size_t id_ = 0;
  uint32_t too_short_ = 0;
  uint32_t not_vxlan_ = 0;
};

const ModuleClass kClass = {"VXLANDecap",
                            "vxlan_decap",
                            "decapsulates the outer Ethernet/IP/UDP/VXLAN headers",
                            "VXLANDecapArg",
                            1,
                            1,
                            {},
                            make_module<VxlanDecap>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
