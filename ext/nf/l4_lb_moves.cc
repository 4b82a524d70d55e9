// SPDX-License-Identifier: BSD-3-Clause
// Other addresses for an L4LB's services and backends, and other endpoints for its clients, as of a
// gateway whose keys change. All of it runs while no worker does.
#include <algorithm>
#include <array>
#include <cerrno>
#include <set>

#include "modules/addresses.h"
#include "nf/l4_lb.h"

namespace e2 {
namespace {

constexpr uint64_t kNsPerMs = 1'000'000;

std::string indexed(const char* list, size_t i) {
  return std::string("replace_connections: ") + list + "[" + std::to_string(i) + "]";
}

Status read_client(const Args& args, uint64_t proto, const std::string& where, LbEndpoint& client) {
  const std::string& text = args["address"].as_string();
  const std::string bytes = read_address(text);
  const uint64_t port = args["port"].as_uint();
  if (bytes.empty() || port > UINT16_MAX) {
    return Status::invalid(where + " is \"" + text + "\", port " + std::to_string(port) +
                           "; must be an IPv4 or IPv6 address and at most 65535");
  }
  client = LbEndpoint::from(bytes, static_cast<uint16_t>(port), static_cast<uint8_t>(proto));
  return {};
}

// Source and destination of a connection's packets, and the key of others.
LbEndpoint end_of(const FlowKey& key, bool destination) {
  LbEndpoint end;
  if (key.ipv6()) {
    std::memcpy(end.address, key.words + (destination ? 3 : 1), sizeof end.address);
  } else {
    std::memcpy(end.address,
                reinterpret_cast<const uint8_t*>(key.words + 1) + (destination ? 4 : 0), 4);
  }
  const auto port = static_cast<uint16_t>(key.words[0] >> (destination ? 16 : 0));
  end.rest =
      LbEndpoint::make_rest(port, static_cast<uint8_t>(key.words[0] >> 32), key.ipv6() ? 6 : 4);
  return end;
}
FlowKey key_of(const LbEndpoint& client, const LbEndpoint& service) {
  FlowKey key = {};
  key.words[0] = client.port() | static_cast<uint64_t>(service.port()) << 16 |
                 static_cast<uint64_t>(client.proto()) << 32 |
                 static_cast<uint64_t>(client.version()) << 40;
  if (key.ipv6()) {
    std::memcpy(key.words + 1, client.address, sizeof client.address);
    std::memcpy(key.words + 3, service.address, sizeof service.address);
  } else {
    auto* const bytes = reinterpret_cast<uint8_t*>(key.words + 1);
    std::memcpy(bytes, client.address, 4);
    std::memcpy(bytes + 4, service.address, 4);
  }
  return key;
}

Args describe(const LbEndpoint& endpoint) {
  Args args;
  args.set("address", endpoint.address_text());
  args.set("port", static_cast<uint64_t>(endpoint.port()));
  return args;
}

Status clash(const LbEndpoint& endpoint, const char* what) {
  return Status::error(EEXIST, "replace_connections: addresses: " + endpoint.address_text() +
                                   ", port " + std::to_string(endpoint.port()) + ", would be " +
                                   what);
}

}  // namespace

std::string LbEndpoint::address_text() const {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(version() == 4 ? AF_INET : AF_INET6, bytes(), text, sizeof text);
  return text;
}

std::vector<LbEndpoint> LbServices::addresses() const {
  std::vector<LbEndpoint> found;
  LbIndex seen;
  const auto note = [&](const LbEndpoint& endpoint) {
    const LbEndpoint address = endpoint.address_only();
    if (seen.find(address) != kNone) return;
    seen.add(address, 0);
    found.push_back(address);
  };
  for (const LbService& service : services_) note(service.endpoint);
  for (uint32_t i = 0; i < kMostBackends; ++i) {
    if (!backends_[i].used) continue;
    note(backends_[i].virtual_end);  // whose service may be gone
    note(backends_[i].endpoint);
  }
  return found;
}

Status LbServices::forget(const std::string& text, const std::string& where, LbMoves& moves) {
  const std::string bytes = read_address(text);
  if (bytes.empty()) {
    return Status::invalid(where + " is \"" + text + "\"; must be an IPv4 or IPv6 address");
  }
  const LbEndpoint address = LbEndpoint::from(bytes, 0, 0);
  const auto is_it = [&](const LbKept& kept) { return kept.endpoint.address_only() == address; };
  const auto left = std::remove_if(moves.kept.begin(), moves.kept.end(), is_it);
  if (left == moves.kept.end()) {
    return Status::error(ENOENT, where + ": " + text + " is no old address that is kept");
  }
  moves.kept.erase(left, moves.kept.end());
  return {};
}

Status LbServices::read_moves(const Args::List& list, bool keep_old, LbMoves& moves) const {
  LbIndex known;
  for (const LbEndpoint& address : addresses()) known.add(address, 0);
  LbIndex news;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = indexed("addresses", i);
    const std::string& old_text = list[i]["old"].as_string();
    const std::string& new_text = list[i]["new"].as_string();
    const std::string before = read_address(old_text);
    const std::string after = read_address(new_text);
    if (before.empty() || before.size() != after.size()) {
      return Status::invalid(where + ": old is \"" + old_text + "\" and new \"" + new_text +
                             "\"; must be two IPv4 or two IPv6 addresses");
    }
    const LbEndpoint from = LbEndpoint::from(before, 0, 0);
    const LbEndpoint to = LbEndpoint::from(after, 0, 0);
    if (known.find(from) == kNone) {
      return Status::error(ENOENT, where + ".old: " + old_text + " is of no service or backend");
    }
    if (moves.by_old.find(from) != kNone || news.find(to) != kNone) {
      return Status::error(EEXIST, where + ": has an address of one before it; give each once");
    }
    moves.by_old.add(from, static_cast<uint32_t>(moves.news.size()));
    moves.news.push_back(to);
    news.add(to, 0);
  }
  for (uint32_t i = 0; keep_old && i < kMostBackends; ++i) {
    const LbBackend& one = backends_[i];
    if (!one.used || one.direct || moves.of(one.endpoint) == one.endpoint) continue;
    moves.kept.push_back({one.endpoint, one.virtual_end, i, one.from_change});
  }
  if (moves.kept.size() > kMostBackends) {
    return Status::error(ENOSPC, "replace_connections: " + std::to_string(moves.kept.size()) +
                                     " old endpoints would be kept; must be at most " +
                                     std::to_string(kMostBackends));
  }
  return check_moves(moves);
}

// Whether afterwards nobody has what another one has.
Status LbServices::check_moves(const LbMoves& moves) const {
  LbIndex services;
  LbIndex backends;
  for (const LbService& service : services_) {
    const LbEndpoint after = moves.of(service.endpoint);
    if (services.find(after) != kNone) return clash(after, "two services");
    services.add(after, 0);
  }
  for (uint32_t i = 0; i < kMostBackends; ++i) {
    if (!backends_[i].used) continue;
    const LbEndpoint after = moves.of(backends_[i].endpoint);
    if (backends.find(after) != kNone) return clash(after, "two backends");
    backends.add(after, 0);
  }
  for (const LbKept& kept : moves.kept) {
    if (backends.find(kept.endpoint) == kNone) continue;
    return clash(kept.endpoint,
                 "a backend and an old address that is kept; forget it, or do not "
                 "keep it");
  }
  return {};
}

void LbServices::move(const LbMoves& moves) {
  for (LbService& service : services_) service.endpoint = moves.of(service.endpoint);
  for (uint32_t i = 0; i < kMostBackends; ++i) {
    LbBackend& backend = backends_[i];
    if (!backend.used) continue;
    backend.endpoint = moves.of(backend.endpoint);
    backend.virtual_end = moves.of(backend.virtual_end);
    backend.to_change = address_change(backend.virtual_end, backend.endpoint);
    backend.from_change = address_change(backend.endpoint, backend.virtual_end);
  }
  set_kept(moves.kept);
  make_indices();
  make_tables();
}

void LbServices::set_kept(std::vector<LbKept> kept) {
  kept_ = std::move(kept);
  by_kept_ = {};
  for (uint32_t i = 0; i < kept_.size(); ++i) by_kept_.add(kept_[i].endpoint, i);
}

// What replace_connections does to connections, once all of it is known to be good.
struct L4LB::Clients {
  std::vector<std::pair<uint32_t, FlowKey>> moves;
  uint64_t ended = 0;
};

Status L4LB::read_clients(const Args::List& list, const LbMoves& moves, Clients& clients) const {
  LbIndex by_old;
  LbIndex news;
  std::vector<LbEndpoint> after;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = indexed("connections", i);
    const uint64_t proto = list[i]["protocol"].as_uint();
    if (proto != kProtoTcp && proto != kProtoUdp) {
      return Status::invalid(where + ".protocol is " + std::to_string(proto) +
                             "; must be 6 (TCP) or 17 (UDP)");
    }
    LbEndpoint from;
    LbEndpoint to;
    Status status = read_client(list[i]["old"], proto, where + ".old", from);
    if (status.ok()) status = read_client(list[i]["new"], proto, where + ".new", to);
    if (!status.ok()) return status;
    if (from.version() != to.version()) {
      return Status::invalid(where + ": has one IPv4 and one IPv6 address; must be of one kind");
    }
    if (by_old.find(from) != LbIndex::kNone || news.find(to) != LbIndex::kNone) {
      return Status::error(EEXIST, where + ": has an endpoint of one before it; give each once");
    }
    by_old.add(from, static_cast<uint32_t>(i));
    news.add(to, static_cast<uint32_t>(i));
    after.push_back(to);
  }
  std::vector<bool> found(list.size());
  std::vector<bool> goes(table_.end());
  std::set<std::array<uint64_t, 5>> taken;
  for (uint32_t at = 0; at < table_.end(); ++at) {
    if (table_[at].state == 0) continue;
    const FlowKey before = table_.key(at);
    const uint32_t number = by_old.find(end_of(before, false));
    if (number == LbIndex::kNone) continue;
    found[number] = goes[at] = true;
    const FlowKey key = key_of(after[number], moves.of(end_of(before, true)));
    clients.moves.emplace_back(at, key);
    std::array<uint64_t, 5> words;
    std::copy(std::begin(key.words), std::end(key.words), words.begin());
    if (taken.insert(words).second) continue;
    return Status::error(
        EEXIST, indexed("connections", number) + ".new: would have two connections to one service");
  }
  for (const auto& [at, key] : clients.moves) {
    const uint32_t holder = table_.find(key, table_.place(key));
    if (holder == FlowTable::kNone || goes[holder]) continue;
    return Status::error(EEXIST,
                         "replace_connections: connections: " + end_of(key, false).address_text() +
                             ", port " + std::to_string(end_of(key, false).port()) +
                             ", has a connection of its own");
  }
  clients.ended = static_cast<uint64_t>(std::count(found.begin(), found.end(), false));
  return {};
}

Status L4LB::get_connections(const Args&, Args& response) {
  const uint64_t now = end_expired();
  Args::List connections;
  for (uint32_t at = 0; at < table_.end(); ++at) {
    if (table_[at].state == 0) continue;
    const FlowKey key = table_.key(at);
    const uint64_t used = table_[at].used_ns;
    Args one;
    one.set("protocol", static_cast<uint64_t>(end_of(key, false).proto()));
    one.set("client", describe(end_of(key, false)));
    one.set("service", describe(end_of(key, true)));
    one.set("backend", static_cast<uint64_t>(table_[at].gate));
    one.set("idle_ms", now > used ? (now - used) / kNsPerMs : 0);
    connections.push_back(std::move(one));
  }
  Args::List addresses;
  for (const LbEndpoint& address : services_.addresses()) {
    addresses.emplace_back(address.address_text());
  }
  Args::List kept;
  LbIndex seen;
  for (const LbKept& one : services_.kept()) {
    const LbEndpoint address = one.endpoint.address_only();
    if (seen.find(address) != LbIndex::kNone) continue;
    seen.add(address, 0);
    Args pair;
    pair.set("old", address.address_text());
    pair.set("current", services_.backend(one.number).endpoint.address_text());
    kept.push_back(std::move(pair));
  }
  response.set("connections", std::move(connections));
  response.set("addresses", std::move(addresses));
  response.set("kept_addresses", std::move(kept));
  return {};
}

Status L4LB::replace_connections(const Args& args, Args& response) {
  end_expired();
  LbMoves moves;
  moves.kept = services_.kept();
  const Args::List& forgotten = args["forget_addresses"].as_list();
  for (size_t i = 0; i < forgotten.size(); ++i) {
    Status status =
        LbServices::forget(forgotten[i].as_string(), indexed("forget_addresses", i), moves);
    if (!status.ok()) return status;
  }
  Status status =
      services_.read_moves(args["addresses"].as_list(), args["keep_old"].as_bool(), moves);
  Clients clients;
  if (status.ok()) status = read_clients(args["connections"].as_list(), moves, clients);
  if (!status.ok()) return status;
  for (const auto& [at, key] : clients.moves) table_.rekey(at, key);
  services_.move(moves);
  // Of connections that were not named: one's virtual address may be another service's now.
  for (uint32_t at = 0; at < table_.end(); ++at) {
    if (table_[at].state == 0) continue;
    const uint32_t service = services_.find_service(end_of(table_.key(at), true));
    if (service == LbServices::kNone) continue;
    const LbEndpoint& virtual_end = services_.backend(table_[at].gate).virtual_end;
    if (!(services_.service(service).endpoint == virtual_end)) end_flow(at);
  }
  response.set("replaced", static_cast<uint64_t>(clients.moves.size()));
  response.set("ended", clients.ended);
  return {};
}

}  // namespace e2
