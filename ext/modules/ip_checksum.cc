// SPDX-License-Identifier: BSD-3-Clause
// IPChecksum: computes or verifies the IPv4 header checksum.
//
// Works behind VLAN tags and over IP options.
//
// Family: headers
// Gates: in 1, out 2. 0: computed, right, or not IPv4 (unchanged); 1: wrong (only with `verify`).
// Arguments: IPChecksumArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "packet too short"  no whole Ethernet or IPv4 header, or an impossible length in it
// Origin: the module of this name in BESS; the code is new.
#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kChecksumAt = 10;
constexpr Gate kForwardGate = 0;
constexpr Gate kFailGate = 1;

class IpChecksum final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    too_short_ = add_drop_reason("packet too short");
    verify_ = args["verify"].as_bool();
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    emit_each(ctx, batch, [this](Packet& packet) { return handle(packet); });
  }

 private:
  Gate handle(Packet& packet) const {
    Headers h = parse_ip_headers(packet.data(), packet.len());
    if (h.ip_version != 4) {
      return ipv4_is_cut(h) ? drop_gate(too_short_) : kForwardGate;
    }
    uint8_t* ip = packet.data() + h.l3_off;
    if (verify_) {
      return checksum_fold(checksum_add(ip, h.l3_len)) == 0 ? kForwardGate : kFailGate;
    }
    store_be16(ip + kChecksumAt, ipv4_checksum(ip, h.l3_len));
    return kForwardGate;
  }

  bool verify_ = false;
  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {"IPChecksum",
                            "ip_checksum",
                            "recomputes the IPv4 checksum",
                            "IPChecksumArg",
                            1,
                            2,
                            {},
                            make_module<IpChecksum>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
