// SPDX-License-Identifier: BSD-3-Clause
// VLANPush: adds a VLAN tag outside of those that are there.
//
// The tag's type is 0x8100 (802.1Q), or 0x88a8 (802.1ad) on a packet whose first tag is 0x8100.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: VLANPushArg
// Commands:
//   set_tci  changes the tag
// Metadata: none.
// Drop reasons:
//   "packet too short"  no whole Ethernet header
//   "no headroom"       the buffer has no 4 bytes left in front of the packet
// Origin: the module of this name in BESS; the code is new.
#include <atomic>

#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kTagBytes = 4;
constexpr uint32_t kAddressBytes = 12;

class VlanPush final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    too_short_ = add_drop_reason("packet too short");
    no_headroom_ = add_drop_reason("no headroom");
    Args none;
    return set_tci(args, none);
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const uint16_t tci = tci_.load(std::memory_order_relaxed);
    emit_each(ctx, batch, [this, tci](Packet& packet) { return push(packet, tci); });
  }

  Status set_tci(const Args& args, Args&) {
    const uint64_t tci = args["tci"].as_uint();
    if (tci > 0xffff) {
      return Status::invalid("'tci' " + std::to_string(tci) + " must be within 0..65535");
    }
    tci_.store(static_cast<uint16_t>(tci), std::memory_order_relaxed);
    return {};
  }

  std::string description() const override {
    const uint16_t tci = tci_.load(std::memory_order_relaxed);
    return "PCP=" + std::to_string(tci >> 13) + " DEI=" + std::to_string(tci >> 12 & 1) +
           " VID=" + std::to_string(tci & 0xfff);
  }

 private:
  Gate push(Packet& packet, uint16_t tci) const {
    if (packet.len() < kEthernetBytes) return drop_gate(too_short_);
    uint8_t* data = packet.prepend(kTagBytes);
    if (data == nullptr) return drop_gate(no_headroom_);
    const bool tagged = load_be16(data + kTagBytes + kAddressBytes) == kEtherVlan;
    store_macs(data, load_macs(data + kTagBytes));
    const uint32_t type = tagged ? kEtherQinq : kEtherVlan;
    store_be32(data + kAddressBytes, type << 16 | tci);
    return 0;
  }

  std::atomic<uint16_t> tci_{0};
  uint32_t too_short_ = 0;
  uint32_t no_headroom_ = 0;
};

const ModuleClass kClass = {
    "VLANPush",
    "vlan_push",
    "adds 802.1Q/802.1ad VLAN tag",
    "VLANPushArg",
    1,
    1,
    {{"set_tci", "VLANPushArg", "EmptyArg", true, command(&VlanPush::set_tci)}},
    make_module<VlanPush>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
