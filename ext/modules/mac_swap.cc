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

constexpr uint32_t kEthernetBytes = 14;

class MacSwap final : public Module {
 public:
  Status init(Host&, const Args&) override {
    too_short_ = add_drop_reason("packet too short");
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      const bool whole = batch[i]->len() >= kEthernetBytes;
      gates[i] = whole ? 0 : drop_gate(too_short_);
      if (whole) swap_addresses(batch[i]->data());
    }
    emit_by_gate(ctx, batch, gates);
  }

 private:
  static void swap_addresses(uint8_t* ether) {
    uint8_t old[12];
    std::memcpy(old, ether, sizeof old);
    std::memcpy(ether, old + 6, 6);
    std::memcpy(ether + 6, old, 6);
  }

  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {
    "MACSwap", "macswap",           "swaps source/destination MAC addresses", "MACSwapArg", 1, 1,
    {},        make_module<MacSwap>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
