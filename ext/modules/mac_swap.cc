// SPDX-License-Identifier: BSD-3-Clause
// MACSwap: swaps the source and destination MAC addresses.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: MACSwapArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "packet too short"  no whole Ethernet header
// Origin: the module of this name in BESS; the code is new.
#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

class MacSwap final : public Module {
 public:
  Status init(Host&, const Args&) override {
    too_short_ = add_drop_reason("packet too short");
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    emit_each(ctx, batch, [this](Packet& packet) {
      if (packet.len() < kEthernetBytes) return drop_gate(too_short_);
      swap_addresses(packet.data());
      return Gate{0};
    });
  }

 private:
  static void swap_addresses(uint8_t* ether) {
    const MacPair old = load_macs(ether);
    const uint64_t source = old.head >> 48 | static_cast<uint64_t>(old.tail) << 16;
    store_macs(ether, {source | old.head << 48, static_cast<uint32_t>(old.head >> 16)});
  }

  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {"MACSwap",
                            "macswap",
                            "swaps source/destination MAC addresses",
                            "MACSwapArg",
                            1,
                            1,
                            {},
                            make_module<MacSwap>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
