// SPDX-License-Identifier: BSD-3-Clause
// VXLANEncap: puts UDP and VXLAN headers in front of Ethernet frames (RFC 7348).
//
// Follow it with IPEncap and EtherEncap for a whole outer frame. The UDP source port is a hash of
// the inner flow within 49152..65535, so that one flow keeps one path: of IPv6 by its flow label,
// where there is one (RFC 6438); fragments hash without ports, frames that are not IP by their MAC
// addresses. The UDP checksum is 0 (none).
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: VXLANEncapArg
// Commands: none.
// Metadata: reads tun_ip_src (4 bytes), tun_ip_dst (4), tun_id (4, its low 24 bits count); writes
// ip_src (4), ip_dst (4), ip_proto (1, UDP). All in network order.
// Drop reasons:
//   "no headroom"      the buffer has no 16 bytes left in front of the packet
//   "packet too long"  with the headers it would be longer than 65535 bytes
// Origin: the module of this name in BESS, whose hash is another one; the code is new.
#include "host/flow_hash.h"
#include "host/module.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

constexpr uint16_t kVxlanPort = 4789;
constexpr uint32_t kVxlanBytes = 8;
constexpr uint64_t kVniPresent = 0x08000000;
constexpr uint32_t kFirstPrivatePort = 0xc000;

class VxlanEncap final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    const uint64_t port = args["dstport"].as_uint();
    if (port > 0xffff) {
      return Status::invalid("'dstport' " + std::to_string(port) + " must be within 1..65535");
    }
    if (port != 0) dstport_ = static_cast<uint16_t>(port);
    no_headroom_ = add_drop_reason("no headroom");
    too_long_ = add_drop_reason("packet too long");
    tun_src_ = add_attr("tun_ip_src", 4, Access::kRead);
    tun_dst_ = add_attr("tun_ip_dst", 4, Access::kRead);
    tun_id_ = add_attr("tun_id", 4, Access::kRead);
    ip_src_ = add_attr("ip_src", 4, Access::kWrite);
    ip_dst_ = add_attr("ip_dst", 4, Access::kWrite);
    ip_proto_ = add_attr("ip_proto", 1, Access::kWrite);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    // Looked up once: through `this`, every store to a packet would make the compiler look again.
    const Places at = {attr_offset(tun_src_), attr_offset(tun_dst_), attr_offset(tun_id_),
                       attr_offset(ip_src_),  attr_offset(ip_dst_),  attr_offset(ip_proto_)};
    const uint16_t dstport = dstport_;
    emit_each(ctx, batch, [=, this](Packet& packet) { return encapsulate(packet, at, dstport); });
  }

 private:
  struct Places {
    int tun_src;
    int tun_dst;
    int tun_id;
    int ip_src;
    int ip_dst;
    int ip_proto;
  };

  Gate encapsulate(Packet& packet, const Places& at, uint32_t dstport) const {
    const uint32_t total = packet.len() + kUdpBytes + kVxlanBytes;
    if (total > 0xffff) return drop_gate(too_long_);
    if (packet.headroom() < kUdpBytes + kVxlanBytes) return drop_gate(no_headroom_);
    const uint64_t hash = frame_hash(packet.data(), packet.len());
    const uint32_t sport = (hash & 0xffff) | kFirstPrivatePort;
    const auto src = read_attr_as<uint32_t>(packet, at.tun_src);
    const auto dst = read_attr_as<uint32_t>(packet, at.tun_dst);
    const uint32_t id = __builtin_bswap32(read_attr_as<uint32_t>(packet, at.tun_id));
    uint8_t* udp = packet.prepend(kUdpBytes + kVxlanBytes);
    store_be64(udp, static_cast<uint64_t>(sport << 16 | dstport) << 32 | total << 16);
    store_be64(udp + 8, kVniPresent << 32 | id << 8);
    write_attr(packet, at.ip_src, &src, sizeof src);
    write_attr(packet, at.ip_dst, &dst, sizeof dst);
    write_attr(packet, at.ip_proto, &kProtoUdp, 1);
    return 0;
  }

  uint16_t dstport_ = kVxlanPort;
  size_t tun_src_ = 0;
  size_t tun_dst_ = 0;
  size_t tun_id_ = 0;
  size_t ip_src_ = 0;
  size_t ip_dst_ = 0;
  size_t ip_proto_ = 0;
  uint32_t no_headroom_ = 0;
  uint32_t too_long_ = 0;
};

const ModuleClass kClass = {"VXLANEncap",
                            "vxlan_encap",
                            "encapsulates packets with UDP/VXLAN headers",
                            "VXLANEncapArg",
                            1,
                            1,
                            {},
                            make_module<VxlanEncap>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
