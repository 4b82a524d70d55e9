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

constexpr uint64_t kVersionAndTos = 0x4500;
constexpr uint32_t kDontFragment = 0x4000;
constexpr uint32_t kTtl = 64;

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
    // Looked up once: through `this`, every store to a packet would make the compiler look again.
    const Places at = {attr_offset(src_), attr_offset(dst_), attr_offset(proto_),
                       attr_offset(nexthop_), attr_offset(type_)};
    emit_each(ctx, batch, [this, at](Packet& packet) { return encapsulate(packet, at); });
  }

 private:
  struct Places {
    int src;
    int dst;
    int proto;
    int nexthop;
    int type;
  };

  Gate encapsulate(Packet& packet, const Places& at) const {
    const uint32_t total = packet.len() + kIpv4Bytes;
    if (total > 0xffff) return drop_gate(too_long_);
    uint8_t* ip = packet.prepend(kIpv4Bytes);
    if (ip == nullptr) return drop_gate(no_headroom_);
    const uint32_t src = __builtin_bswap32(read_attr_as<uint32_t>(packet, at.src));
    const uint32_t dst = __builtin_bswap32(read_attr_as<uint32_t>(packet, at.dst));
    const uint32_t ttl_and_proto = kTtl << 8 | read_attr_as<uint8_t>(packet, at.proto);
    const uint32_t sum = kVersionAndTos + total + kDontFragment + ttl_and_proto + (src >> 16) +
                         (src & 0xffff) + (dst >> 16) + (dst & 0xffff);
    store_be64(ip, kVersionAndTos << 48 | static_cast<uint64_t>(total) << 32 | kDontFragment);
    store_be64(ip + 8, static_cast<uint64_t>(ttl_and_proto << 16 | checksum_fold(sum)) << 32 | src);
    store_be32(ip + 16, dst);
    const uint32_t nexthop = __builtin_bswap32(dst);
    const uint16_t type = __builtin_bswap16(kEtherIpv4);
    write_attr(packet, at.nexthop, &nexthop, sizeof nexthop);
    write_attr(packet, at.type, &type, sizeof type);
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

const ModuleClass kClass = {"IPEncap",
                            "ip_encap",
                            "encapsulates packets with an IPv4 header",
                            "IPEncapArg",
                            1,
                            1,
                            {},
                            make_module<IpEncap>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
