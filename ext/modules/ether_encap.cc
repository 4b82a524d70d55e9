// SPDX-License-Identifier: BSD-3-Clause
// EtherEncap: puts an Ethernet header in front of packets.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: EtherEncapArg
// Commands: none.
// Metadata: reads ether_src (6 bytes), ether_dst (6), ether_type (2), all in network order.
// Drop reasons:
//   "no headroom"  the buffer has no 14 bytes left in front of the packet
// Origin: the module of this name in BESS, which lets such packets pass without the header; the
// code is new.
#include "host/headers.h"
#include "host/module.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

class EtherEncap final : public Module {
 public:
  Status init(Host&, const Args&) override {
    no_headroom_ = add_drop_reason("no headroom");
    src_ = add_attr("ether_src", 6, Access::kRead);
    dst_ = add_attr("ether_dst", 6, Access::kRead);
    type_ = add_attr("ether_type", 2, Access::kRead);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const int src = attr_offset(src_);
    const int dst = attr_offset(dst_);
    const int type = attr_offset(type_);
    emit_each(ctx, batch, [=, this](Packet& packet) {
      uint8_t* ether = packet.prepend(kEthernetBytes);
      if (ether == nullptr) return drop_gate(no_headroom_);
      read_attr(packet, dst, ether, 6);
      read_attr(packet, src, ether + 6, 6);
      read_attr(packet, type, ether + 12, 2);
      return Gate{0};
    });
  }

 private:
  size_t src_ = 0;
  size_t dst_ = 0;
  size_t type_ = 0;
  uint32_t no_headroom_ = 0;
};

const ModuleClass kClass = {"EtherEncap",
                            "ether_encap",
                            "encapsulates packets with an Ethernet header",
                            "EtherEncapArg",
                            1,
                            1,
                            {},
                            make_module<EtherEncap>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
