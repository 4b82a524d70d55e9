// SPDX-License-Identifier: BSD-3-Clause
// ArpResponder: answers ARP requests for the addresses that it was told.
//
// The request is turned into the reply, which leaves by gate 0 behind the VLAN tags that the
// request came with. Nothing is learned from requests, and IPv6's neighbour discovery is not ARP.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: ArpResponderArg
// Commands:
//   add  sets the MAC address to answer for an IPv4 address
// Metadata: none.
// Drop reasons:
//   "not ARP"           another EtherType, or not for IPv4 over Ethernet
//   "packet too short"  no whole Ethernet or ARP header
//   "not a request"     a reply or another operation
//   "unknown address"   a request for an address that it was not told
// Method: a hash table (key_table.h) that commands change while packets flow (live_table.h).
// Origin: the module of this name in BESS, which takes no argument; the code is new.
#include "host/live_table.h"
#include "modules/addresses.h"
#include "modules/key_table.h"

namespace e2 {
namespace {

constexpr uint32_t kArpBytes = 28;
constexpr uint64_t kEthernetIpv4 = 0x0001080006040000;  // hardware, protocol, their lengths
constexpr uint16_t kRequest = 1;
constexpr uint16_t kReply = 2;
constexpr uint32_t kMacBytes = 6;

class ArpResponder final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    not_arp_ = drop_gate(add_drop_reason("not ARP"));
    too_short_ = drop_gate(add_drop_reason("packet too short"));
    not_request_ = drop_gate(add_drop_reason("not a request"));
    unknown_ = drop_gate(add_drop_reason("unknown address"));
    const bool given = !args["ip"].as_string().empty() || !args["mac_addr"].as_string().empty();
    return given ? set(args, "ArpResponder.") : Status{};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    auto table = table_.read(ctx);
    for (uint32_t i = 0; i < batch.size; ++i) gates[i] = answer(*table, *batch[i]);
    table.release();
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override {
    return std::to_string(table_.look()->macs.size()) + " addresses";
  }

  Status add(const Args& args, Args&) { return set(args, "add: "); }

 private:
  struct Table {
    KeyTable macs{1, 1};
  };

  Status set(const Args& args, const std::string& where) {
    uint32_t ip = 0;
    uint64_t mac = 0;
    Status status = read_ipv4(args["ip"], where + "ip", ip);
    if (status.ok()) status = read_mac(args["mac_addr"], where + "mac_addr", mac);
    if (!status.ok()) return status;
    const uint64_t key = ip;
    table_.change([key, mac](Table& table) {
      bool created = false;
      *table.macs.insert(&key, created) = mac;
    });
    return {};
  }

  Gate answer(const Table& table, Packet& packet) const {
    uint8_t* data = packet.data();
    Headers h = parse_ip_headers(data, packet.len());
    if (h.l2_len == 0) return too_short_;
    if (h.ether_type != kEtherArp) return not_arp_;
    if (packet.len() - h.l2_len < kArpBytes) return too_short_;
    uint8_t* arp = data + h.l2_len;
    if ((load_be64(arp) & ~0xffffULL) != kEthernetIpv4) return not_arp_;
    if (load_be16(arp + 6) != kRequest) return not_request_;
    const uint64_t target = load_be32(arp + 24);
    const uint64_t* found = table.macs.find(&target);
    if (found == nullptr) return unknown_;
    uint8_t mac[8];
    store_be64(mac, *found << 16);
    std::memcpy(data, data + kMacBytes, kMacBytes);
    std::memcpy(data + kMacBytes, mac, kMacBytes);
    store_be16(arp + 6, kReply);
    std::memcpy(arp + 18, arp + 8, kMacBytes + 4);  // the sender is the new target
    std::memcpy(arp + 8, mac, kMacBytes);
    store_be32(arp + 14, static_cast<uint32_t>(target));
    return 0;
  }

  Live<Table> table_;
  Gate not_arp_ = 0;
  Gate too_short_ = 0;
  Gate not_request_ = 0;
  Gate unknown_ = 0;
};

const ModuleClass kClass = {
    "ArpResponder",
    "arp_responder",
    "answers ARP requests for known addresses",
    "ArpResponderArg",
    1,
    1,
    {{"add", "ArpResponderArg", "EmptyArg", true, command(&ArpResponder::add)}},
    make_module<ArpResponder>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
