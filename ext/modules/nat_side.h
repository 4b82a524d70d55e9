// SPDX-License-Identifier: BSD-3-Clause
// NatSide: a NAT of one family: its external addresses, its mappings, and what it does to packets.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "host/module.h"
#include "modules/nat_families.h"
#include "modules/nat_table.h"

namespace e2 {

constexpr uint64_t kNatIdleNs = 120ULL * 1000 * 1000 * 1000;
constexpr size_t kNatMaxAddresses = 256;  // and as many old ones that are kept

// Where packets go that are not translated.
struct NatDrops {
  Gate not_translatable = 0;
  Gate no_mapping = 0;
  Gate no_free_port = 0;
};

struct NatPortRange {
  uint32_t begin;
  uint32_t end;
};

template <typename Family>
class NatSide {
 public:
  using Address = typename Family::Address;
  using Endpoint = typename Family::Endpoint;
  using Table = MappingTable<Family>;

  // An address that packets may still come back to, and which external one it was.
  struct Alias {
    Address address;
    uint32_t external;
  };
  struct External {
    Address address;
    std::vector<NatPortRange> ranges;  // without suspended ones
    PortSet taken[4];                  // TCP, UDP, ICMP, ICMPv6

    PortSet& ports(uint8_t proto) {
      return taken[proto == kProtoTcp ? 0 : proto == kProtoUdp ? 1 : proto == kProtoIcmp ? 2 : 3];
    }
  };

  // Storage is taken where there are addresses.
  void init(std::vector<External> addresses, uint64_t seed, bool encrypted_ports) {
    addresses_ = std::move(addresses);
    seed_ = seed;
    encrypted_ports_ = encrypted_ports;
    if (used()) clear();
  }
  bool used() const { return !addresses_.empty(); }
  Table& table() { return table_; }
  const Table& table() const { return table_; }
  // Which external address it is; the number of them where it is none.
  uint32_t find_external(const Address& address) const {
    uint32_t i = 0;
    while (i < addresses_.size() && !(addresses_[i].address == address)) ++i;
    return i;
  }
  uint32_t externals() const { return static_cast<uint32_t>(addresses_.size()); }
  const Address& external(uint32_t i) const { return addresses_[i].address; }
  const std::vector<Alias>& aliases() const { return aliases_; }

  // Gates of all packets of the family, and of those that nobody can translate; where `mixed`, the
  // others' are left alone.
  template <bool kMixed>
  void translate(Context& ctx, Batch& batch, bool forward, const NatDrops& drops, Gate* gates);

  bool expired(uint32_t i, uint64_t now_ns) { return table_[i].used_ns + kNatIdleNs <= now_ns; }
  // Forgets up to `limit` mappings, those idle for longest first.
  uint32_t expire(uint64_t now_ns, uint32_t limit) {
    uint32_t count = 0;
    while (count < limit && table_.oldest() != Table::kNone && expired(table_.oldest(), now_ns)) {
      forget(table_.oldest());
      ++count;
    }
    return count;
  }

  // For commands. Forgets all mappings.
  void clear() {
    table_.init(seed_);
    for (External& external : addresses_) {
      for (PortSet& ports : external.taken) ports = {};
      // Port 0 is an identifier like any other for ICMP, but no port.
      external.ports(kProtoTcp).take(0);
      external.ports(kProtoUdp).take(0);
    }
  }
  // Other addresses for external ones, by their numbers; mappings and ports stay.
  void move_externals(const std::vector<std::pair<uint32_t, Address>>& moves) {
    for (const auto& [number, address] : moves) addresses_[number].address = address;
    for (uint32_t i = table_.oldest(); i != Table::kNone; i = table_.newer(i)) {
      const Endpoint before = table_[i].endpoint[kExternal];
      const Address& address = addresses_[table_[i].address].address;
      if (before.address() == address) continue;
      table_.move(i, kExternal, Endpoint(address, before.port(), before.proto()));
    }
  }
  // For reverse packets only; in place of those that there were.
  void set_aliases(std::vector<Alias> aliases) { aliases_ = std::move(aliases); }
  // A mapping that is given; external endpoints are given once each.
  void restore(const Endpoint& internal, const Endpoint& external, uint64_t used_ns) {
    const uint32_t index = find_external(external.address());
    addresses_[index].ports(external.proto()).take(external.port());
    table_.add(internal, external, index, used_ns);
  }

 private:
  static constexpr uint32_t kPrivilegedEnd = 1024;
  static constexpr uint32_t kSweepPerBatch = 2 * kMaxBatch;  // twice what a batch can add
  static constexpr uint32_t kSweepWhenFull = 1024;

  // Where the headers of a packet are that can be translated.
  struct Spot {
    uint16_t l3_off;
    uint16_t l4_off;
  };

  // Inline, both of them: what they need of headers and endpoints stays in registers.
  [[gnu::always_inline]] inline Endpoint read_endpoint(const uint8_t* data, const Headers& headers,
                                                       bool forward) const;
  [[gnu::always_inline]] static inline void rewrite(uint8_t* data, Spot spot, bool forward,
                                                    const typename Table::Mapping& mapping,
                                                    uint32_t address_change);
  // Of a reverse packet to an alias; false where it is to none, or has no mapping.
  // Not inline: packets that find their mapping should not pay for its registers.
  [[gnu::noinline]] bool rewrite_alias(uint8_t* data, Spot spot, const Endpoint& external,
                                       uint64_t now_ns);

  void forget(uint32_t i) {
    const Endpoint& external = table_[i].endpoint[kExternal];
    addresses_[table_[i].address].ports(external.proto()).give_back(external.port());
    table_.remove(i);
  }
  uint32_t create(Context& ctx, const Endpoint& internal);
  uint32_t find_port(Context& ctx, External& address, const Endpoint& internal) const;

  Table table_;
  std::vector<External> addresses_;
  std::vector<Alias> aliases_;
  uint64_t seed_ = 0;
  bool encrypted_ports_ = false;
};

// The endpoint that a packet has on the side to translate; none where it cannot be translated.
template <typename Family>
typename Family::Endpoint NatSide<Family>::read_endpoint(const uint8_t* data,
                                                         const Headers& headers,
                                                         bool forward) const {
  if (headers.ip_version != Family::kVersion || headers.l4_off == 0) return Endpoint();
  if (headers.fragment || headers.more_fragments) return Endpoint();
  const uint8_t* const ip = data + headers.l3_off;
  const uint8_t* const address = ip + (forward ? Family::kSourceAt : Family::kDestinationAt);
  if (Family::kVersion == 6 && !forward &&
      ipv6_goes_elsewhere(data, headers.l3_off, headers.l4_off)) {
    return Endpoint();
  }
  const uint8_t proto = headers.ip_proto;
  if (proto == kProtoTcp || proto == kProtoUdp) {
    const uint16_t port = forward ? headers.sport : headers.dport;
    if (port == 0 && !encrypted_ports_) return Endpoint();
    return Endpoint(Family::load(address), port, proto);
  }
  const uint8_t* const icmp = data + headers.l4_off;
  const bool echo = proto == kProtoIcmp ? icmp[0] == 8 || icmp[0] == 0
                                        : Family::kVersion == 6 && proto == kProtoIcmpv6 &&
                                              (icmp[0] == 128 || icmp[0] == 129);
  if (!echo || icmp[1] != 0) return Endpoint();
  return Endpoint(Family::load(address), load_be16(icmp + 4), proto);
}

template <typename Family>
void NatSide<Family>::rewrite(uint8_t* data, Spot spot, bool forward,
                              const typename Table::Mapping& mapping, uint32_t address_change) {
  uint8_t* const ip = data + spot.l3_off;
  uint8_t* const l4 = data + spot.l4_off;
  const Side side = forward ? kInternal : kExternal;
  const Endpoint& after = mapping.endpoint[1 - side];
  const uint32_t port_change = mapping.port_change[side];
  Family::store(ip + (forward ? Family::kSourceAt : Family::kDestinationAt), after.address());
  if (Family::kVersion == 4) update_checksum(ip + 10, address_change);
  const uint8_t proto = after.proto();
  if (proto == kProtoIcmp || (Family::kVersion == 6 && proto == kProtoIcmpv6)) {
    store_be16(l4 + 4, after.port());
    // ICMP has no pseudo header.
    update_checksum(l4 + 2, port_change + (proto == kProtoIcmp ? 0 : address_change));
    return;
  }
  store_be16(l4 + (forward ? 0 : 2), after.port());
  if (proto == kProtoTcp) {
    update_checksum(l4 + 16, address_change + port_change);
  } else {
    update_udp_checksum(l4 + 6, address_change + port_change);
  }
}

template <typename Family>
bool NatSide<Family>::rewrite_alias(uint8_t* data, Spot spot, const Endpoint& external,
                                    uint64_t now_ns) {
  const Address written = external.address();
  for (const Alias& alias : aliases_) {
    if (!(alias.address == written)) continue;
    const Address& current = addresses_[alias.external].address;
    const auto found = table_.find(kExternal, Endpoint(current, external.port(), external.proto()));
    if (found == Table::kNone || expired(found, now_ns)) return false;
    const auto& mapping = table_[found];
    // The mapping knows the change from its current address only.
    const uint32_t change = Family::change(written, mapping.endpoint[kInternal].address());
    rewrite(data, spot, false, mapping, change);
    return true;
  }
  return false;
}

template <typename Family>
template <bool kMixed>
void NatSide<Family>::translate(Context& ctx, Batch& batch, bool forward, const NatDrops& drops,
                                Gate* gates) {
  const Side side = forward ? kInternal : kExternal;
  const Gate out_gate = forward ? 1 : 0;
  expire(ctx.now_ns, kSweepPerBatch);

  Spot spots[kMaxBatch];
  Endpoint before[kMaxBatch];
  uint32_t buckets[kMaxBatch];
  for (uint32_t i = 0; i < batch.size; ++i) {
    const Packet& packet = *batch[i];
    Headers h = parse_headers(packet.data(), packet.len());
    spots[i] = {h.l3_off, h.l4_off};
    before[i] = read_endpoint(packet.data(), h, forward);
    buckets[i] = table_.bucket(before[i]);
    table_.prefetch_head(side, buckets[i]);
  }
  for (uint32_t i = 0; i < batch.size; ++i) table_.prefetch_first(side, buckets[i]);

  for (uint32_t i = 0; i < batch.size; ++i) {
    if (before[i].none()) {
      if (!kMixed) gates[i] = drops.not_translatable;
      continue;
    }
    uint32_t found = table_.find(side, buckets[i], before[i]);
    if (found != Table::kNone && expired(found, ctx.now_ns)) {
      forget(found);
      found = Table::kNone;
    }
    if (found == Table::kNone && forward) {
      found = create(ctx, before[i]);
    } else if (forward) {
      table_.touch(found, ctx.now_ns);
    }
    if (found != Table::kNone) {
      const auto& mapping = table_[found];
      rewrite(batch[i]->data(), spots[i], forward, mapping, mapping.address_change[side]);
      gates[i] = out_gate;
    } else if (forward) {
      gates[i] = drops.no_free_port;
    } else {
      const bool known =
          !aliases_.empty() && rewrite_alias(batch[i]->data(), spots[i], before[i], ctx.now_ns);
      gates[i] = known ? out_gate : drops.no_mapping;
    }
  }
}

template <typename Family>
uint32_t NatSide<Family>::create(Context& ctx, const Endpoint& internal) {
  const uint64_t spread = Family::spread(internal.address());
  const auto index = static_cast<uint32_t>(spread * addresses_.size() >> 32);
  External& address = addresses_[index];
  uint32_t port = table_.full() ? PortSet::kPorts : find_port(ctx, address, internal);
  if (port == PortSet::kPorts && expire(ctx.now_ns, kSweepWhenFull) != 0) {
    port = find_port(ctx, address, internal);
  }
  if (port == PortSet::kPorts) return Table::kNone;
  address.ports(internal.proto()).take(port);
  return table_.add(internal, Endpoint(address.address, port, internal.proto()), index, ctx.now_ns);
}

// A free port of the internal port's class, from a random place on; PortSet::kPorts where there is
// none.
template <typename Family>
uint32_t NatSide<Family>::find_port(Context& ctx, External& address,
                                    const Endpoint& internal) const {
  const bool numbered = internal.proto() == kProtoTcp || internal.proto() == kProtoUdp;
  const bool any = !numbered || encrypted_ports_;
  const bool privileged = internal.port() < kPrivilegedEnd;
  const PortSet& ports = address.ports(internal.proto());
  for (const NatPortRange& range : address.ranges) {
    const uint32_t begin = any || privileged ? range.begin : std::max(range.begin, kPrivilegedEnd);
    const uint32_t end = any || !privileged ? range.end : std::min(range.end, kPrivilegedEnd);
    if (begin >= end) continue;
    const uint32_t start = begin + ctx.random.below(end - begin);
    const uint32_t upper = ports.first_free(start, end);
    if (upper != end) return upper;
    const uint32_t lower = ports.first_free(begin, start);
    if (lower != start) return lower;
  }
  return PortSet::kPorts;
}

}  // namespace e2
