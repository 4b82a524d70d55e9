// SPDX-License-Identifier: BSD-3-Clause
// NeighborResponder: answers IPv6 neighbour solicitations for the addresses that it was told.
//
// The solicitation is turned into the advertisement (RFC 4861, 7.2.4), which leaves by gate 0
// behind the VLAN tags that the solicitation came with, to the MAC address that the frame came
// from; metadata stays. Flags are "solicited" and "override", and "router" where `router` says so.
// Whoever asks from the unspecified address, because it wants to use the target itself (RFC 4862,
// duplicate address detection), is told that it is taken: the answer goes to all nodes, without
// "solicited". So a prefix is for addresses that no host on this link uses.
//
// Of several prefixes that hold a target the longest counts. Nothing is learned from solicitations.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: NeighborResponderArg
// Commands:
//   add     sets the MAC address to answer for an IPv6 address or prefix
//   delete  answers no longer for one; ENOENT where it was not told
// Metadata: none.
// Drop reasons:
//   "not a solicitation"  not IPv6, another protocol or ICMPv6 type, or behind extension headers,
//                         as no solicitation needs to be (RFC 6980 forbids the Fragment header)
//   "packet too short"    no whole Ethernet, IPv6 or ICMPv6 header, or it ends before its option
//   "bad solicitation"    refused by RFC 4861, 7.1.1: hop limit other than 255 (it came through a
//                         router), checksum, code, length, target or option of no length; from the
//                         unspecified address, but not to a solicited-node address, or with a MAC
//                         address
//   "unknown address"     a solicitation for an address that it was not told
//   "no tailroom"         the buffer has no room for the MAC address
// Method: a hash table per prefix length, longest first (route_table.h), which commands change
// while packets flow (live_table.h).
// Origin: new, after ArpResponder.
#include "host/headers.h"
#include "host/live_table.h"
#include "modules/addresses.h"
#include "modules/route_table.h"

namespace e2 {
namespace {

constexpr uint32_t kMacBytes = 6;
constexpr uint32_t kAddressBytes = 16;
constexpr uint32_t kFixedBytes = 24;  // of either message
constexpr uint32_t kAnswerBytes = kFixedBytes + 8;
constexpr uint8_t kSolicitation = 135;
constexpr uint8_t kAdvertisement = 136;
constexpr uint8_t kSourceMacOption = 1;
constexpr uint8_t kTargetMacOption = 2;
constexpr uint8_t kHopLimit = 255;
constexpr uint32_t kRouter = 1U << 31;
constexpr uint32_t kSolicited = 1U << 30;
constexpr uint32_t kOverride = 1U << 29;
constexpr uint8_t kAllNodes[kAddressBytes] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
constexpr uint8_t kAllNodesMac[kMacBytes] = {0x33, 0x33, 0, 0, 0, 1};
constexpr uint8_t kSolicitedNodes[13] = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff};
constexpr uint64_t kRouterBit = uint64_t{1} << 48;  // beside a MAC address

bool is_unspecified(const uint8_t* address) {
  return (load_be64(address) | load_be64(address + 8)) == 0;
}

class NeighborResponder final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    not_solicitation_ = drop_gate(add_drop_reason("not a solicitation"));
    too_short_ = drop_gate(add_drop_reason("packet too short"));
    bad_ = drop_gate(add_drop_reason("bad solicitation"));
    unknown_ = drop_gate(add_drop_reason("unknown address"));
    no_tailroom_ = drop_gate(add_drop_reason("no tailroom"));
    const bool given = !args["ip"].as_string().empty() || !args["mac_addr"].as_string().empty();
    return given ? set(args, "NeighborResponder.") : Status{};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    auto table = table_.read(ctx);
    for (uint32_t i = 0; i < batch.size; ++i) gates[i] = answer(*table, *batch[i]);
    table.release();
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override {
    return std::to_string(table_.look()->size()) + " prefixes";
  }

  Status add(const Args& args, Args&) { return set(args, "add: "); }

  Status remove(const Args& args, Args&) {
    MatchKey prefix;
    uint32_t bits = 0;
    Status status = read_prefix(args, "delete: ", prefix, bits);
    if (!status.ok()) return status;
    return table_.try_change([&](Ipv6Routes& table) {
      if (table.erase(prefix, bits)) return Status{};
      return Status::error(ENOENT, "delete: ip: no answers for " + args["ip"].as_string());
    });
  }

 private:
  static Status read_prefix(const Args& args, const std::string& where, MatchKey& prefix,
                            uint32_t& bits) {
    const std::string& text = args["ip"].as_string();
    std::string bytes;
    if (!parse_prefix(text, bytes, bits) || bytes.size() != kAddressBytes ||
        static_cast<uint8_t>(bytes[0]) == 0xff) {
      return Status::invalid(where + "ip is \"" + text +
                             "\"; must be an IPv6 address or prefix such as 2001:db8::1 or "
                             "2001:db8::/64, and no multicast");
    }
    MatchKey address;
    std::memcpy(address.bytes(), bytes.data(), kAddressBytes);
    prefix = Ipv6Routes::masked(address, bits);
    if (std::memcmp(prefix.bytes(), bytes.data(), kAddressBytes) == 0) return {};
    return Status::invalid(where + "ip: " + text + " has bits beyond its length; they must be 0");
  }

  Status set(const Args& args, const std::string& where) {
    MatchKey prefix;
    uint32_t bits = 0;
    uint64_t mac = 0;
    Status status = read_prefix(args, where, prefix, bits);
    if (status.ok()) status = read_mac(args["mac_addr"], where + "mac_addr", mac);
    if (!status.ok()) return status;
    if (args["router"].as_bool()) mac |= kRouterBit;
    table_.change([&](Ipv6Routes& table) { table.add(prefix, bits, mac); });
    return {};
  }

  Gate answer(const Ipv6Routes& table, Packet& packet) const {
    uint8_t* const data = packet.data();
    Headers h = parse_headers(data, packet.len());
    if (h.l2_len == 0) return too_short_;
    if (h.ether_type != kEtherIpv6) return not_solicitation_;
    if (h.ip_version == 0) return too_short_;
    if (h.ip_proto != kProtoIcmpv6 || h.l3_len != kIpv6Bytes) return not_solicitation_;
    const uint32_t bytes = h.ip_total_len - kIpv6Bytes;
    if (h.l4_off == 0 || uint32_t{h.l4_off} + bytes > packet.len()) return too_short_;
    const uint8_t* const ip = data + h.l3_off;
    const uint8_t* const message = data + h.l4_off;
    if (message[0] != kSolicitation) return not_solicitation_;
    if (!is_valid(ip, message, bytes) || !l4_checksum_ok(data, h)) return bad_;
    MatchKey target;
    std::memcpy(target.bytes(), message + 8, kAddressBytes);
    const uint64_t* const found = table.find(target);
    if (found == nullptr) return unknown_;
    const uint32_t after = packet.len() - h.l4_off;
    if (after >= kAnswerBytes) {
      packet.trim(after - kAnswerBytes);
    } else if (packet.append(kAnswerBytes - after) == nullptr) {
      return no_tailroom_;
    }
    packet.set_wire_len(0);
    write_answer(data, h, *found);
    return 0;
  }

  static bool is_valid(const uint8_t* ip, const uint8_t* message, uint32_t bytes) {
    if (ip[7] != kHopLimit || message[1] != 0 || bytes < kFixedBytes || message[8] == 0xff) {
      return false;
    }
    bool has_mac = false;
    for (uint32_t at = kFixedBytes; at < bytes;) {
      const uint32_t len = at + 2 <= bytes ? message[at + 1] * 8U : 0;
      if (len == 0 || at + len > bytes) return false;
      has_mac |= message[at] == kSourceMacOption;
      at += len;
    }
    const bool to_solicited = std::memcmp(ip + 24, kSolicitedNodes, sizeof kSolicitedNodes) == 0;
    return !is_unspecified(ip + 8) || (to_solicited && !has_mac);
  }

  static void write_answer(uint8_t* data, const Headers& h, uint64_t entry) {
    uint8_t mac[8];
    store_be64(mac, entry << 16);
    uint8_t* const ip = data + h.l3_off;
    uint8_t* const message = data + h.l4_off;
    const bool probe = is_unspecified(ip + 8);
    std::memcpy(data, probe ? kAllNodesMac : data + kMacBytes, kMacBytes);
    std::memcpy(data + kMacBytes, mac, kMacBytes);
    store_be32(ip, 6U << 28);
    store_be16(ip + 4, kAnswerBytes);
    std::memcpy(ip + 24, probe ? kAllNodes : ip + 8, kAddressBytes);
    std::memcpy(ip + 8, message + 8, kAddressBytes);  // the target
    store_be32(message, uint32_t{kAdvertisement} << 24);
    store_be32(message + 4,
               ((entry & kRouterBit) != 0 ? kRouter : 0) | (probe ? 0 : kSolicited) | kOverride);
    message[kFixedBytes] = kTargetMacOption;
    message[kFixedBytes + 1] = 1;  // in words of 8 bytes
    std::memcpy(message + kFixedBytes + 2, mac, kMacBytes);
    const uint32_t pseudo =
        checksum_add(ip + 8, size_t{2} * kAddressBytes, kAnswerBytes + kProtoIcmpv6);
    store_be16(message + 2, checksum_fold(checksum_add(message, kAnswerBytes, pseudo)));
  }

  Live<Ipv6Routes> table_;  // MAC addresses, some with kRouterBit
  Gate not_solicitation_ = 0;
  Gate too_short_ = 0;
  Gate bad_ = 0;
  Gate unknown_ = 0;
  Gate no_tailroom_ = 0;
};

const ModuleClass kClass = {
    "NeighborResponder",
    "neighbor_responder",
    "answers IPv6 neighbour solicitations for known addresses",
    "NeighborResponderArg",
    1,
    1,
    {{"add", "NeighborResponderArg", "EmptyArg", true, command(&NeighborResponder::add)},
     {"delete", "NeighborResponderCommandDeleteArg", "EmptyArg", true,
      command(&NeighborResponder::remove)}},
    make_module<NeighborResponder>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
