// SPDX-License-Identifier: BSD-3-Clause
// VLANPop: removes the outermost VLAN tag (0x8100 or 0x88a8).
//
// Packets without a tag pass unchanged.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: VLANPopArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "packet too short"  no whole Ethernet header, or no whole tag
// Origin: the module of this name in BESS; the code is new.
#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kTagBytes = 4;
constexpr uint32_t kAddressBytes = 12;

class VlanPop final : public Module {
 public:
  Status init(Host&, const Args&) override {
    too_short_ = add_drop_reason("packet too short");
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    emit_each(ctx, batch,
              [this](Packet& packet) { return pop(packet) ? Gate{0} : drop_gate(too_short_); });
  }

 private:
  static bool pop(Packet& packet) {
    if (packet.len() < kEthernetBytes) return false;
    uint8_t* data = packet.data();
    const uint16_t type = load_be16(data + kAddressBytes);
    if (type != kEtherVlan && type != kEtherQinq) return true;
    if (packet.len() < kEthernetBytes + kTagBytes) return false;
    store_macs(data + kTagBytes, load_macs(data));
    packet.adj(kTagBytes);
    return true;
  }

  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {"VLANPop",
                            "vlan_pop",
                            "removes 802.1Q/802.1ad VLAN tag",
                            "VLANPopArg",
                            1,
                            1,
                            {},
                            make_module<VlanPop>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
