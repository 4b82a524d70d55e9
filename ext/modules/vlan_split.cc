// SPDX-License-Identifier: BSD-3-Clause
// VLANSplit: removes the outer VLAN tag and sends the packet to the gate of that VLAN's number.
//
// Tags are those of type 0x8100 and 0x88a8.
//
// Family: matching
// Gates: in 1, out 4096. Gate N for VLAN N; packets without a tag go to gate 0 unchanged.
// Arguments: VLANSplitArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "truncated tag"  the packet ends inside its tag
// Origin: the module of this name in BESS; the code is new.
#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kMacBytes = 12;
constexpr uint32_t kTagBytes = 4;
constexpr uint16_t kVidMask = 0x0fff;

class VLANSplit final : public Module {
 public:
  Status init(Host&, const Args&) override {
    truncated_ = drop_gate(add_drop_reason("truncated tag"));
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    emit_each(ctx, batch, [this](Packet& packet) { return untag(packet); });
  }

 private:
  Gate untag(Packet& packet) const {
    uint8_t* data = packet.data();
    if (packet.len() < kMacBytes + 2) return 0;
    const uint16_t type = load_be16(data + kMacBytes);
    if (type != kEtherVlan && type != kEtherQinq) return 0;
    if (packet.len() < kMacBytes + kTagBytes) return truncated_;
    const uint16_t tci = load_be16(data + kMacBytes + 2);
    std::memmove(data + kTagBytes, data, kMacBytes);
    packet.adj(kTagBytes);
    return tci & kVidMask;
  }

  Gate truncated_ = 0;
};

const ModuleClass kClass = {"VLANSplit",
                            "vlan_split",
                            "split packets depending on their VID",
                            "VLANSplitArg",
                            1,
                            kVidMask + 1,
                            {},
                            make_module<VLANSplit>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
