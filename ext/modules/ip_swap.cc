// SPDX-License-Identifier: BSD-3-Clause
// IPSwap: swaps source and destination IP addresses, and the ports of TCP and UDP.
//
// IPv4 and IPv6, behind any VLAN tags. Checksums stay right, as both sums are over the same words;
// SCTP ports stay where they are, as its CRC would not. A fragment other than the first has no
// ports. Packets that are not IP pass unchanged.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: EmptyArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "packet too short"  no whole Ethernet, IP, TCP or UDP header
// Origin: the module of this name in BESS, which knows IPv4 without VLAN tags; the code is new.
#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

// Swaps two neighbours of the size of Word.
template <typename Word>
inline void swap_pair(uint8_t* at) {
  Word first;
  Word second;
  std::memcpy(&first, at, sizeof first);
  std::memcpy(&second, at + sizeof first, sizeof second);
  std::memcpy(at, &second, sizeof second);
  std::memcpy(at + sizeof second, &first, sizeof first);
}

struct Ipv6Address {
  uint64_t words[2];
};

class IpSwap final : public Module {
 public:
  Status init(Host&, const Args&) override {
    too_short_ = add_drop_reason("packet too short");
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    emit_each(ctx, batch,
              [this](Packet& packet) { return swap(packet) ? Gate{0} : drop_gate(too_short_); });
  }

 private:
  static bool swap(Packet& packet) {
    uint8_t* data = packet.data();
    Headers h = parse_headers(data, packet.len());
    if (h.ip_version == 0) {
      return !ip_is_cut(h);
    }
    if (h.l3_len == 0) return false;
    const bool has_ports = (h.ip_proto == kProtoTcp || h.ip_proto == kProtoUdp) && !h.fragment;
    if (has_ports && h.l4_off == 0) return false;
    if (h.ip_version == 4) {
      swap_pair<uint32_t>(data + h.l3_off + 12);
    } else {
      swap_pair<Ipv6Address>(data + h.l3_off + 8);
    }
    if (has_ports) swap_pair<uint16_t>(data + h.l4_off);
    return true;
  }

  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {"IPSwap",
                            "ipswap",
                            "swaps source/destination IP addresses and L4 ports",
                            "EmptyArg",
                            1,
                            1,
                            {},
                            make_module<IpSwap>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
