// SPDX-License-Identifier: BSD-3-Clause
// UpdateTTL: takes one off the IPv4 TTL or the IPv6 hop limit.
//
// The IPv4 checksum is adjusted (RFC 1624): right stays right, and wrong stays wrong. Works behind
// VLAN tags. Packets that are not IP pass unchanged.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: EmptyArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "TTL expired"       it is 0 or 1
//   "packet too short"  no whole Ethernet or IP header
// Origin: the module of this name in BESS, which knows IPv4 without VLAN tags; the code is new.
#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kTtlAt = 8;
constexpr uint32_t kChecksumAt = 10;
constexpr uint32_t kHopLimitAt = 7;

class UpdateTtl final : public Module {
 public:
  Status init(Host&, const Args&) override {
    expired_ = add_drop_reason("TTL expired");
    too_short_ = add_drop_reason("packet too short");
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    emit_each(ctx, batch, [this](Packet& packet) { return update(packet); });
  }

 private:
  Gate update(Packet& packet) const {
    Headers h = find_ip(packet.data(), packet.len());
    uint8_t* ip = packet.data() + h.l3_off;
    if (h.ip_version == 4) {
      if (ip[kTtlAt] <= 1) return drop_gate(expired_);
      --ip[kTtlAt];
      // The word with the TTL is 0x100 less, so the complement of the sum is 0x100 more.
      const uint32_t sum = load_be16(ip + kChecksumAt) + 0x100u;
      store_be16(ip + kChecksumAt, static_cast<uint16_t>(sum + (sum >= 0xffff)));
      return 0;
    }
    if (h.ip_version == 6) {
      if (ip[kHopLimitAt] <= 1) return drop_gate(expired_);
      --ip[kHopLimitAt];
      return 0;
    }
    return ip_is_cut(h) ? drop_gate(too_short_) : Gate{0};
  }

  uint32_t expired_ = 0;
  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {"UpdateTTL",
                            "update_ttl",
                            "decreases the IP TTL field by 1",
                            "EmptyArg",
                            1,
                            1,
                            {},
                            make_module<UpdateTtl>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
