// SPDX-License-Identifier: BSD-3-Clause
// MPLSPop: removes the outermost MPLS label.
//
// What is left leaves by gate 0, either without its Ethernet header and VLAN tags, or with them and
// an EtherType that fits: still MPLS where another label follows; otherwise `next_eth_type` or, as
// long as none is set, IPv6 where what follows starts with version 6 and IPv4 for all else. Frames
// that are not MPLS unicast (0x8847) leave by gate 1 unchanged.
//
// Family: headers
// Gates: in 1, out 2.
// Arguments: EmptyArg
// Commands:
//   set  what is removed and the EtherType of what is left
// Metadata: none.
// Drop reasons:
//   "packet too short"  no whole Ethernet header, or no whole label
// Origin: the module of this name in BESS, which knows no VLAN tags and writes `next_eth_type`
// (IPv4 at first) whatever follows; the code is new.
#include <atomic>

#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint16_t kEtherMpls = 0x8847;
constexpr uint32_t kLabelBytes = 4;
constexpr uint8_t kLastLabel = 1;  // of the label's third byte

class MplsPop final : public Module {
 public:
  Status init(Host&, const Args&) override {
    too_short_ = drop_gate(add_drop_reason("packet too short"));
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const Setting setting = setting_.load(std::memory_order_relaxed);
    emit_each(ctx, batch, [this, setting](Packet& packet) { return pop(packet, setting); });
  }

  Status set(const Args& args, Args&) {
    const uint64_t type = args["next_eth_type"].as_uint();
    if (type > 0xffff) {
      return Status::invalid("set: next_eth_type is " + std::to_string(type) +
                             "; must be 0 to 65535");
    }
    const uint16_t remove = args["remove_eth_header"].as_bool() ? 1 : 0;
    setting_.store({static_cast<uint16_t>(type), remove}, std::memory_order_relaxed);
    return {};
  }

 private:
  // One word, so that workers never see one half of a change.
  struct Setting {
    uint16_t next_type = 0;
    uint16_t remove_ethernet = 0;
  };

  Gate pop(Packet& packet, Setting setting) const {
    uint8_t* data = packet.data();
    Headers h = parse_ip_headers(data, packet.len());
    if (h.l2_len == 0) return too_short_;
    if (h.ether_type != kEtherMpls) return 1;
    const uint32_t inner = h.l2_len + kLabelBytes;
    if (packet.len() < inner) return too_short_;
    if (setting.remove_ethernet != 0) {
      packet.adj(inner);
      return 0;
    }
    uint16_t type = kEtherMpls;
    if ((data[inner - 2] & kLastLabel) != 0) {
      const bool ipv6 = packet.len() > inner && data[inner] >> 4 == 6;
      type = setting.next_type != 0 ? setting.next_type : ipv6 ? kEtherIpv6 : kEtherIpv4;
    }
    std::memmove(data + kLabelBytes, data, h.l2_len);
    store_be16(data + inner - 2, type);
    packet.adj(kLabelBytes);
    return 0;
  }

  std::atomic<Setting> setting_{Setting{}};
  Gate too_short_ = 0;
};

const ModuleClass kClass = {"MPLSPop",
                            "mpls_pop",
                            "removes the outermost MPLS label",
                            "EmptyArg",
                            1,
                            2,
                            {{"set", "MplsPopArg", "EmptyArg", true, command(&MplsPop::set)}},
                            make_module<MplsPop>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
