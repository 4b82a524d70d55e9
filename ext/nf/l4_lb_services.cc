// SPDX-License-Identifier: BSD-3-Clause
#include "nf/l4_lb_services.h"

#include <algorithm>
#include <cerrno>

#include "modules/addresses.h"
#include "modules/checksum_change.h"

namespace e2 {
namespace {

constexpr size_t kAddressBytes = 16;
constexpr uint32_t kTableSize = 16381;  // a prime, as permutations of places need
constexpr uint32_t kTries = 8;
constexpr uint64_t kMostWeight = 100;

Status read_endpoint(const Args& args, uint64_t proto, const std::string& where,
                     LbEndpoint& endpoint) {
  const std::string& text = args["address"].as_string();
  const std::string bytes = read_address(text);
  if (bytes.empty()) {
    return Status::invalid(where + ".address is \"" + text + "\"; must be an IPv4 or IPv6 address");
  }
  const uint64_t port = args["port"].as_uint();
  if (port > UINT16_MAX) {
    return Status::invalid(where + ".port is " + std::to_string(port) +
                           "; must be at most 65535, or 0 for all");
  }
  endpoint = LbEndpoint::from(bytes, static_cast<uint16_t>(port), static_cast<uint8_t>(proto));
  return {};
}

}  // namespace

uint32_t address_change(const LbEndpoint& before, const LbEndpoint& after) {
  uint32_t sum = 0;
  for (size_t at = 0; at < kAddressBytes; at += 2) {
    sum += change16(load_be16(before.bytes() + at), load_be16(after.bytes() + at));
  }
  return sum;
}

// What read() found, before any of it counts.
struct LbServices::Reading {
  struct Backend {
    LbEndpoint endpoint;
    uint32_t service;
    uint32_t weight;
    uint8_t mac[6];
  };
  std::vector<LbService> services;
  std::vector<Backend> backends;
};

namespace {

template <typename Reading>
bool is_listed(const Reading& reading, const LbBackend& backend) {
  return std::any_of(reading.backends.begin(), reading.backends.end(),
                     [&](const auto& one) { return one.endpoint == backend.endpoint; });
}

}  // namespace

void LbIndex::add(const LbEndpoint& endpoint, uint32_t number) {
  if (2 * (size_ + 1) > slots_.size()) {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    mask_ = slots_.size() - 1;
    size_ = 0;
    for (const Slot& slot : old) {
      if (slot.number != kNone) add(slot.endpoint, slot.number);
    }
  }
  size_t at = endpoint.index_hash();
  while (slots_[at & mask_].number != kNone) ++at;
  slots_[at & mask_] = {endpoint, number};
  ++size_;
}

Status LbServices::read(const Args::List& list, const std::string& where) {
  if (list.empty() || list.size() > kMostServices) {
    return Status::invalid(where + " has " + std::to_string(list.size()) +
                           " services; must have 1 to " + std::to_string(kMostServices));
  }
  Reading reading;
  for (size_t i = 0; i < list.size(); ++i) {
    Status status = read_service(list[i], where + "[" + std::to_string(i) + "]", reading);
    if (!status.ok()) return status;
  }
  uint32_t places = kMostBackends;
  for (uint32_t i = 0; i < kMostBackends; ++i) places -= backends_[i].used;
  uint32_t fresh = 0;
  for (const Reading::Backend& backend : reading.backends) {
    const bool known =
        std::any_of(&backends_[0], &backends_[0] + kMostBackends,
                    [&](const LbBackend& b) { return b.used && b.endpoint == backend.endpoint; });
    fresh += !known;
  }
  if (fresh > places) {
    return Status::error(ENOSPC, where + ": has " + std::to_string(fresh) +
                                     " new backends, and there is room for " +
                                     std::to_string(places));
  }
  take_over(reading);
  return {};
}

Status LbServices::read_service(const Args& args, const std::string& where,
                                Reading& reading) const {
  const uint64_t proto = args["protocol"].as_uint(kProtoTcp);
  if (proto != kProtoTcp && proto != kProtoUdp) {
    return Status::invalid(where + ".protocol is " + std::to_string(proto) +
                           "; must be 6 (TCP) or 17 (UDP)");
  }
  LbService service;
  Status status = read_endpoint(args, proto, where, service.endpoint);
  if (!status.ok()) return status;
  for (const LbService& other : reading.services) {
    if (!(other.endpoint == service.endpoint)) continue;
    return Status::error(
        EEXIST, where + ": has the address, port and protocol of another; give " + "each once");
  }
  service.direct = args["direct"].as_bool();
  const Args::List& backends = args["backends"].as_list();
  if (backends.size() > kMostMembers) {
    return Status::invalid(where + ".backends has " + std::to_string(backends.size()) +
                           " entries; must have at most " + std::to_string(kMostMembers));
  }
  reading.services.push_back(service);
  for (size_t i = 0; i < backends.size(); ++i) {
    status = read_backend(backends[i], where + ".backends[" + std::to_string(i) + "]", reading);
    if (!status.ok()) return status;
  }
  return {};
}

Status LbServices::read_backend(const Args& args, const std::string& where,
                                Reading& reading) const {
  const LbService& service = reading.services.back();
  Reading::Backend backend = {};
  Status status = read_endpoint(args, service.endpoint.proto(), where, backend.endpoint);
  if (!status.ok()) return status;
  if (backend.endpoint.version() != service.endpoint.version()) {
    return Status::invalid(where + ".address is of another IP version than its service's; must " +
                           "be of the same");
  }
  if (backend.endpoint.port() == 0 && service.endpoint.port() != 0) {
    backend.endpoint = backend.endpoint.with_port(service.endpoint.port());
  }
  if (backend.endpoint.port() != 0 && service.endpoint.port() == 0) {
    return Status::invalid(where + ".port is " + std::to_string(backend.endpoint.port()) +
                           "; must be 0, as its service's is");
  }
  for (const Reading::Backend& other : reading.backends) {
    if (!(other.endpoint == backend.endpoint)) continue;
    return Status::error(EEXIST, where + ": has the address and port of another; give each once, " +
                                     "or nobody knows whose its answers are");
  }
  const uint64_t weight = args["weight"].as_uint() == 0 ? 1 : args["weight"].as_uint();
  if (weight > kMostWeight) {
    return Status::invalid(where + ".weight is " + std::to_string(weight) +
                           "; must be between 1 and " + std::to_string(kMostWeight));
  }
  uint64_t mac = 0;
  if (service.direct) status = read_mac(args["mac"], where + ".mac", mac);
  if (!status.ok()) return status;
  for (size_t i = 0; i < sizeof backend.mac; ++i) {
    backend.mac[i] = static_cast<uint8_t>(mac >> (40 - 8 * i));
  }
  backend.service = static_cast<uint32_t>(reading.services.size() - 1);
  backend.weight = static_cast<uint32_t>(weight);
  reading.backends.push_back(backend);
  return {};
}

// The backend's place, or a new one.
LbBackend& LbServices::place_for(const LbEndpoint& endpoint) const {
  LbBackend* free = nullptr;
  for (uint32_t i = 0; i < kMostBackends; ++i) {
    LbBackend& backend = backends_[i];
    if (backend.used && backend.endpoint == endpoint) return backend;
    if (!backend.used && free == nullptr) free = &backend;
  }
  free->used = true;
  free->endpoint = endpoint;
  free->draining = false;
  free->down = false;
  free->failing = false;
  free->flows = 0;
  free->connections = 0;
  free->unanswered_syns = 0;
  return *free;
}

void LbServices::take_over(const Reading& reading) {
  services_ = reading.services;
  for (uint32_t i = 0; i < kMostBackends; ++i) {
    LbBackend& backend = backends_[i];
    backend.removed = true;
    // Who has no connection has nothing left to do.
    if (backend.flows == 0) backend.used = backend.used && is_listed(reading, backend);
  }
  for (const Reading::Backend& read : reading.backends) {
    LbBackend& backend = place_for(read.endpoint);
    const LbService& service = services_[read.service];
    backend.removed = false;
    backend.weight = read.weight;
    backend.direct = service.direct;
    backend.virtual_end = service.endpoint;
    std::memcpy(backend.mac, read.mac, sizeof backend.mac);
    backend.to_change = address_change(service.endpoint, backend.endpoint);
    backend.from_change = address_change(backend.endpoint, service.endpoint);
    services_[read.service].members.push_back(static_cast<uint16_t>(&backend - &backends_[0]));
  }
  std::vector<LbKept> kept;
  for (const LbKept& one : kept_) {
    if (backends_[one.number].used) kept.push_back(one);
  }
  set_kept(std::move(kept));
  make_indices();
  make_tables();
}

void LbServices::make_indices() {
  by_endpoint_ = {};
  by_backend_ = {};
  addresses_ = {};
  service_ports_ = backend_ports_ = {};
  for (uint32_t i = 0; i < services_.size(); ++i) {
    const LbEndpoint& endpoint = services_[i].endpoint;
    by_endpoint_.add(endpoint, i);
    if (!has_address(endpoint.address_only())) addresses_.add(endpoint.address_only(), i);
    (endpoint.port() == 0 ? service_ports_.any : service_ports_.own) = true;
  }
  for (uint32_t i = 0; i < kMostBackends; ++i) {
    const LbBackend& backend = backends_[i];
    if (!backend.used || backend.direct) continue;  // which answers by itself
    by_backend_.add(backend.endpoint, i);
    (backend.endpoint.port() == 0 ? backend_ports_.any : backend_ports_.own) = true;
  }
}

void LbServices::make_tables() {
  for (LbService& service : services_) make_table(service);
}

// Members in turn take the next free place of their own order; who has a lower weight sits some
// turns out.
void LbServices::make_table(LbService& service) const {
  struct Turn {
    uint16_t number;
    uint32_t next;
    uint32_t step;
    uint32_t credit;
  };
  service.table.clear();
  std::vector<Turn> turns;
  uint32_t most = 1;
  for (const uint16_t number : service.members) {
    const LbBackend& backend = backends_[number];
    if (backend.draining) continue;
    const uint64_t hash = flow_mix(backend.endpoint.hash());
    turns.push_back({number, static_cast<uint32_t>(hash % kTableSize),
                     static_cast<uint32_t>((hash >> 32) % (kTableSize - 1)) + 1, 0});
    most = std::max(most, backend.weight);
  }
  if (turns.empty()) return;
  service.table.assign(kTableSize, UINT16_MAX);
  for (uint32_t taken = 0; taken < kTableSize;) {
    for (Turn& turn : turns) {
      turn.credit += backends_[turn.number].weight;
      if (turn.credit < most) continue;
      turn.credit -= most;
      while (service.table[turn.next] != UINT16_MAX) {
        turn.next = (turn.next + turn.step) % kTableSize;
      }
      service.table[turn.next] = turn.number;
      if (++taken == kTableSize) break;
    }
  }
}

uint32_t LbServices::pick(const LbService& service, uint64_t hash, uint64_t now) const {
  if (service.table.empty()) return kNone;
  for (uint32_t i = 0; i < kTries; ++i) {
    const uint16_t number = service.table[(hash >> 32) * kTableSize >> 32];
    if (backends_[number].available(now)) return number;
    hash = flow_mix(hash + kFlowSeed);
  }
  // Few are left: the next one behind a place of its own.
  const size_t members = service.members.size();
  for (size_t i = 0; i < members; ++i) {
    const LbBackend& backend = backends_[service.members[(hash + i) % members]];
    if (!backend.draining && backend.available(now)) return service.members[(hash + i) % members];
  }
  return kNone;
}

}  // namespace e2
