// SPDX-License-Identifier: BSD-3-Clause
// NAT's commands. Those about mappings run while no worker does.
#include <algorithm>
#include <map>
#include <set>

#include "modules/addresses.h"
#include "modules/nat.h"

namespace e2 {
namespace {

constexpr uint64_t kNsPerMs = 1'000'000;

std::string indexed(const std::string& list, size_t i) {
  return list + "[" + std::to_string(i) + "]";
}

bool is_protocol(uint64_t proto, bool ipv6) {
  return proto == kProtoTcp || proto == kProtoUdp || proto == kProtoIcmp ||
         (ipv6 && proto == kProtoIcmpv6);
}

template <typename Family>
typename Family::Address address_of(const std::string& bytes) {
  return Family::load(reinterpret_cast<const uint8_t*>(bytes.data()));
}

// An endpoint as it is given, before it is known which family it is of.
struct ReadEndpoint {
  std::string address;  // 4 or 16 bytes
  uint32_t port = 0;
  uint8_t proto = 0;

  bool ipv6() const { return address.size() == Ipv6Family::kAddressBytes; }
  template <typename Family>
  typename Family::Endpoint as() const {
    return typename Family::Endpoint(address_of<Family>(address), port, proto);
  }
};

Status read_endpoint(const Args& args, uint64_t proto, const std::string& where,
                     ReadEndpoint& endpoint) {
  const std::string& text = args["address"].as_string();
  endpoint.address = read_address(text);
  if (endpoint.address.empty()) {
    return Status::invalid(where + ".address is \"" + text + "\"; must be an IPv4 or IPv6 address");
  }
  const uint64_t port = args["port"].as_uint();
  if (port >= PortSet::kPorts) {
    return Status::invalid(where + ".port is " + std::to_string(port) + "; must be at most 65535");
  }
  endpoint.port = static_cast<uint32_t>(port);
  endpoint.proto = static_cast<uint8_t>(proto);
  return {};
}

// Two endpoints of one protocol and family.
Status read_pair(const Args& args, const char* first_name, const char* second_name,
                 const std::string& where, ReadEndpoint& first, ReadEndpoint& second) {
  const uint64_t proto = args["protocol"].as_uint();
  Status status = read_endpoint(args[first_name], proto, where + "." + first_name, first);
  if (status.ok()) {
    status = read_endpoint(args[second_name], proto, where + "." + second_name, second);
  }
  if (!status.ok()) return status;
  if (first.ipv6() != second.ipv6()) {
    return Status::invalid(where + ": has one IPv4 and one IPv6 address; must be of one kind");
  }
  if (!is_protocol(proto, first.ipv6())) {
    return Status::invalid(where + ".protocol is " + std::to_string(proto) +
                           "; must be 6 (TCP), 17 (UDP), 1 (ICMP) or, for IPv6, 58 (ICMPv6)");
  }
  return {};
}

template <typename Family>
std::string text_of(const typename Family::Address& address) {
  uint8_t bytes[Family::kAddressBytes];
  Family::store(bytes, address);
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(Family::kVersion == 4 ? AF_INET : AF_INET6, bytes, text, sizeof text);
  return text;
}

template <typename Family>
void list_externals(const NatSide<Family>& side, Args::List& list) {
  for (uint32_t i = 0; i < side.externals(); ++i) {
    list.emplace_back(text_of<Family>(side.external(i)));
  }
}

template <typename Family>
void list_aliases(const NatSide<Family>& side, Args::List& list) {
  for (const auto& alias : side.aliases()) {
    Args one;
    one.set("old", text_of<Family>(alias.address));
    one.set("current", text_of<Family>(side.external(alias.external)));
    list.push_back(std::move(one));
  }
}

template <typename Family>
Args describe(const typename Family::Endpoint& endpoint) {
  Args args;
  args.set("address", text_of<Family>(endpoint.address()));
  args.set("port", static_cast<uint64_t>(endpoint.port()));
  return args;
}

template <typename Family>
void list_mappings(NatSide<Family>& side, uint64_t now, Args::List& list) {
  using Table = typename NatSide<Family>::Table;
  Table& table = side.table();
  for (uint32_t i = table.oldest(); i != Table::kNone; i = table.newer(i)) {
    if (side.expired(i, now)) continue;
    Args one;
    one.set("protocol", static_cast<uint64_t>(table[i].endpoint[kInternal].proto()));
    one.set("internal", describe<Family>(table[i].endpoint[kInternal]));
    one.set("external", describe<Family>(table[i].endpoint[kExternal]));
    const uint64_t used = table[i].used_ns;
    one.set("idle_ms", now > used ? (now - used) / kNsPerMs : 0);
    list.push_back(std::move(one));
  }
}

// What set_mappings gives to one family, once all of it is known to be good.
template <typename Family>
struct Restored {
  using Endpoint = typename Family::Endpoint;
  struct One {
    Endpoint internal;
    Endpoint external;
  };
  std::multimap<uint64_t, One> by_use;  // oldest first
  std::set<Endpoint> internals;
  std::set<Endpoint> externals;

  Status add(const NatSide<Family>& side, const ReadEndpoint& internal,
             const ReadEndpoint& external, uint64_t used_ns, const std::string& where) {
    const One one = {internal.as<Family>(), external.as<Family>()};
    if (side.find_external(one.external.address()) == side.externals()) {
      return Status::error(ENOENT, where + ".external.address: is none of NAT.ext_addrs");
    }
    const bool numbered = external.proto == kProtoTcp || external.proto == kProtoUdp;
    if (numbered && external.port == 0) {
      return Status::invalid(where + ".external.port is 0; must be within 1..65535");
    }
    if (!internals.insert(one.internal).second) {
      return Status::error(EEXIST, where + ".internal: has a mapping before it; give each once");
    }
    if (!externals.insert(one.external).second) {
      return Status::error(EEXIST, where + ".external: has a mapping before it; give each once");
    }
    by_use.emplace(used_ns, one);
    if (by_use.size() <= NatSide<Family>::Table::kMaxMappings) return {};
    return Status::error(ENOSPC, where + ": is one too many; at most 65536 of a family");
  }
  void apply(NatSide<Family>& side) const {
    if (!side.used()) return;
    side.clear();
    for (const auto& [used_ns, one] : by_use) side.restore(one.internal, one.external, used_ns);
  }
};

// What replace_mappings does to one family, once all of it is known to be good.
template <typename Family>
struct Replacements {
  using Address = typename Family::Address;
  using Endpoint = typename Family::Endpoint;
  using Table = typename NatSide<Family>::Table;
  std::map<uint32_t, size_t> from;  // mappings, with the index of their replacement
  std::map<Endpoint, size_t> to;
  std::vector<std::pair<uint32_t, Endpoint>> moves;
  std::vector<std::pair<uint32_t, Address>> externals;
  std::vector<typename NatSide<Family>::Alias> aliases;  // all that there are to be
  uint64_t ended = 0;

  explicit Replacements(const NatSide<Family>& side) : aliases(side.aliases()) {}

  Status add(NatSide<Family>& side, const ReadEndpoint& old_endpoint,
             const ReadEndpoint& new_endpoint, uint64_t now, size_t index,
             const std::string& where) {
    const auto mapping = side.table().find(kInternal, old_endpoint.as<Family>());
    if (mapping == Table::kNone || side.expired(mapping, now)) {
      ++ended;
      return {};
    }
    const auto [same, fresh] = from.emplace(mapping, index);
    if (!fresh) {
      return Status::error(EEXIST, where + ".old: is that of mappings[" +
                                       std::to_string(same->second) + "]; give each once");
    }
    const auto [other, is_new] = to.emplace(new_endpoint.as<Family>(), index);
    if (!is_new) {
      return Status::error(EEXIST, where + ".new: is that of mappings[" +
                                       std::to_string(other->second) + "]; give each once");
    }
    moves.emplace_back(mapping, other->first);
    return {};
  }
  // Endpoints that another mapping has and keeps.
  Status check(NatSide<Family>& side, uint64_t now) const {
    for (const auto& [endpoint, index] : to) {
      const auto holder = side.table().find(kInternal, endpoint);
      if (holder == Table::kNone || from.count(holder) != 0 || side.expired(holder, now)) continue;
      return Status::error(EEXIST, "replace_mappings: " + indexed("mappings", index) +
                                       ".new: has a mapping of its own");
    }
    return {};
  }
  // An old address that is kept no longer.
  Status forget(const std::string& bytes, const std::string& where) {
    const Address address = address_of<Family>(bytes);
    const auto is_it = [&](const auto& alias) { return alias.address == address; };
    const auto found = std::find_if(aliases.begin(), aliases.end(), is_it);
    if (found == aliases.end()) {
      return Status::error(ENOENT, where + ": is none of the old addresses that the NAT keeps");
    }
    aliases.erase(found);
    return {};
  }
  // Another address for one of NAT.ext_addrs.
  Status add_external(const NatSide<Family>& side, const std::string& old_bytes,
                      const std::string& new_bytes, bool keep_old, const std::string& where) {
    const Address before = address_of<Family>(old_bytes);
    const Address after = address_of<Family>(new_bytes);
    const uint32_t number = side.find_external(before);
    if (number == side.externals()) {
      return Status::error(ENOENT, where + ".old: is none of the NAT's external addresses");
    }
    for (const auto& [other, address] : externals) {
      if (other != number && !(address == after)) continue;
      return Status::error(EEXIST, where + ": has an address of one before it; give each once");
    }
    externals.emplace_back(number, after);
    if (keep_old) aliases.push_back({before, number});
    return {};
  }
  Status check_externals(const NatSide<Family>& side) const {
    for (const auto& move : externals) {
      const uint32_t holder = side.find_external(move.second);
      const bool goes = std::any_of(externals.begin(), externals.end(),
                                    [holder](const auto& other) { return other.first == holder; });
      if (holder == side.externals() || goes) continue;
      return Status::error(EEXIST,
                           "replace_mappings: external_addresses: a new address is one that the "
                           "NAT has and keeps");
    }
    for (const auto& alias : aliases) {
      if (!will_be(side, alias.address)) continue;
      return Status::error(EEXIST, "replace_mappings: " + text_of<Family>(alias.address) +
                                       " would be an external address and an old one that is "
                                       "kept; forget it, or do not keep it");
    }
    return {};
  }
  // Whether it is an external address afterwards.
  bool will_be(const NatSide<Family>& side, const Address& address) const {
    const auto is_it = [&](const auto& move) { return move.second == address; };
    if (std::any_of(externals.begin(), externals.end(), is_it)) return true;
    const uint32_t holder = side.find_external(address);
    return holder != side.externals() &&
           std::none_of(externals.begin(), externals.end(),
                        [&](const auto& move) { return move.first == holder; });
  }
  void apply(NatSide<Family>& side) const {
    for (const auto& [mapping, endpoint] : moves) side.table().move(mapping, kInternal, endpoint);
    side.move_externals(externals);
    side.set_aliases(aliases);
  }
};

}  // namespace

Status NAT::get_initial_arg(const Args&, Args& response) {
  response = initial_arg_;
  return {};
}

Status NAT::runtime_config(const Args&, Args&) { return {}; }

Status NAT::get_mappings(const Args&, Args& response) {
  const uint64_t now = now_ns();
  Args::List list;
  if (ipv4_.used()) list_mappings(ipv4_, now, list);
  if (ipv6_.used()) list_mappings(ipv6_, now, list);
  response.set("mappings", std::move(list));
  Args::List externals;
  list_externals(ipv4_, externals);
  list_externals(ipv6_, externals);
  response.set("external_addresses", std::move(externals));
  Args::List aliases;
  list_aliases(ipv4_, aliases);
  list_aliases(ipv6_, aliases);
  response.set("kept_addresses", std::move(aliases));
  return {};
}

Status NAT::set_mappings(const Args& args, Args&) {
  const uint64_t now = now_ns();
  const Args::List& list = args["mappings"].as_list();
  Restored<Ipv4Family> ipv4;
  Restored<Ipv6Family> ipv6;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = "set_mappings: " + indexed("mappings", i);
    ReadEndpoint internal;
    ReadEndpoint external;
    Status status = read_pair(list[i], "internal", "external", where, internal, external);
    if (!status.ok()) return status;
    const uint64_t idle_ms = list[i]["idle_ms"].as_uint();
    if (idle_ms >= kNatIdleNs / kNsPerMs) continue;  // it has ended
    const uint64_t idle_ns = std::min(idle_ms * kNsPerMs, now);
    status = internal.ipv6() ? ipv6.add(ipv6_, internal, external, now - idle_ns, where)
                             : ipv4.add(ipv4_, internal, external, now - idle_ns, where);
    if (!status.ok()) return status;
  }
  ipv4.apply(ipv4_);
  ipv6.apply(ipv6_);
  return {};
}

Status NAT::replace_mappings(const Args& args, Args& response) {
  const uint64_t now = now_ns();
  const Args::List& list = args["mappings"].as_list();
  ipv4_.expire(now, UINT32_MAX);
  ipv6_.expire(now, UINT32_MAX);
  Replacements<Ipv4Family> ipv4(ipv4_);
  Replacements<Ipv6Family> ipv6(ipv6_);
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = "replace_mappings: " + indexed("mappings", i);
    ReadEndpoint from;
    ReadEndpoint to;
    Status status = read_pair(list[i], "old", "new", where, from, to);
    if (!status.ok()) return status;
    const bool used = from.ipv6() ? ipv6_.used() : ipv4_.used();
    if (!used) {
      return Status::error(ENOENT, where + ".old.address: NAT.ext_addrs has none of its family");
    }
    status = from.ipv6() ? ipv6.add(ipv6_, from, to, now, i, where)
                         : ipv4.add(ipv4_, from, to, now, i, where);
    if (!status.ok()) return status;
  }
  const Args::List& forgotten = args["forget_addresses"].as_list();
  for (size_t i = 0; i < forgotten.size(); ++i) {
    const std::string where = "replace_mappings: " + indexed("forget_addresses", i);
    const std::string bytes = read_address(forgotten[i].as_string());
    if (bytes.empty()) {
      return Status::invalid(where + " is \"" + forgotten[i].as_string() +
                             "\"; must be an IPv4 or IPv6 address");
    }
    Status status = bytes.size() == Ipv4Family::kAddressBytes ? ipv4.forget(bytes, where)
                                                              : ipv6.forget(bytes, where);
    if (!status.ok()) return status;
  }
  const Args::List& externals = args["external_addresses"].as_list();
  for (size_t i = 0; i < externals.size(); ++i) {
    const std::string where = "replace_mappings: " + indexed("external_addresses", i);
    const std::string before = read_address(externals[i]["old"].as_string());
    const std::string after = read_address(externals[i]["new"].as_string());
    if (before.empty() || before.size() != after.size()) {
      return Status::invalid(where + ": old is \"" + externals[i]["old"].as_string() +
                             "\" and new \"" + externals[i]["new"].as_string() +
                             "\"; must be two IPv4 or two IPv6 addresses");
    }
    const bool keep_old = externals[i]["keep_old"].as_bool();
    Status status = before.size() == Ipv4Family::kAddressBytes
                        ? ipv4.add_external(ipv4_, before, after, keep_old, where)
                        : ipv6.add_external(ipv6_, before, after, keep_old, where);
    if (!status.ok()) return status;
  }
  if (ipv4.aliases.size() + ipv6.aliases.size() > kNatMaxAddresses) {
    return Status::error(
        ENOSPC, "replace_mappings: " + std::to_string(ipv4.aliases.size() + ipv6.aliases.size()) +
                    " old addresses would be kept; must be at most " +
                    std::to_string(kNatMaxAddresses));
  }
  Status status = ipv4.check_externals(ipv4_);
  if (status.ok()) status = ipv6.check_externals(ipv6_);
  if (status.ok() && ipv4_.used()) status = ipv4.check(ipv4_, now);
  if (status.ok() && ipv6_.used()) status = ipv6.check(ipv6_, now);
  if (!status.ok()) return status;
  ipv4.apply(ipv4_);
  ipv6.apply(ipv6_);
  response.set("replaced", static_cast<uint64_t>(ipv4.moves.size() + ipv6.moves.size()));
  response.set("ended", ipv4.ended + ipv6.ended);
  return {};
}

}  // namespace e2
