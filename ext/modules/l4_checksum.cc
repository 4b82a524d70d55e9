// SPDX-License-Identifier: BSD-3-Clause
// L4Checksum: computes or verifies the TCP or UDP checksum.
//
// IPv4 and IPv6, behind any VLAN tags. There is nothing to compute on other protocols and on
// fragments. A UDP checksum of 0 over IPv4 means none and verifies; over IPv6 it is wrong.
//
// Family: headers
// Gates: in 8192 (all alike), out 2. 0: computed, right, or nothing to compute (unchanged); 1:
// wrong (only with `verify`).
// Arguments: L4ChecksumArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "packet too short"  no whole Ethernet, IP, TCP or UDP header, or fewer bytes than these claim
// Origin: the module of this name in BESS, which knows IPv4 without VLAN tags; the code is new.
#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kUdpLengthAt = 4;
constexpr Gate kForwardGate = 0;
constexpr Gate kFailGate = 1;

class L4Checksum final : public Module {
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
    uint8_t* data = packet.data();
    Headers h = parse_headers(data, packet.len());
    if (h.ip_version == 0) {
      return ip_is_cut(h) ? drop_gate(too_short_) : kForwardGate;
    }
    if (h.l3_len == 0) return drop_gate(too_short_);
    if (h.ip_proto != kProtoTcp && h.ip_proto != kProtoUdp) return kForwardGate;
    if (h.fragment || h.more_fragments) return kForwardGate;
    const uint32_t off = l4_checksum_off(h);
    if (off == 0 || !udp_whole(data, h)) return drop_gate(too_short_);
    if (verify_) return l4_checksum_ok(data, h) ? kForwardGate : kFailGate;
    store_be16(data + off, l4_checksum(data, h));
    return kForwardGate;
  }

  static bool udp_whole(const uint8_t* data, const Headers& h) {
    return h.ip_proto != kProtoUdp ||
           load_be16(data + h.l4_off + kUdpLengthAt) == h.payload_len + kUdpBytes;
  }

  bool verify_ = false;
  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {"L4Checksum",
                            "l4_checksum",
                            "recomputes the TCP and UDP checksum over IPv4 and IPv6",
                            "L4ChecksumArg",
                            kMaxGates,
                            2,
                            {},
                            make_module<L4Checksum>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
