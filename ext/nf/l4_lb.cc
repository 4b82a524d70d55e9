// SPDX-License-Identifier: BSD-3-Clause
// L4LB: sends connections to a virtual endpoint on to backends, each to one as long as it lasts.
//
// A new connection (the first packet of a TCP or UDP 5-tuple to a service) gets a backend by
// consistent hashing over those that are available. All packets that follow go there, whatever
// happens to the list of backends, until the connection ends: `timeout_ms` after its last packet,
// or `linger_ms` after it once the client has sent FIN or RST. A SYN whose backend is not available
// any more gets another.
//
// Packets to a backend get its address and port as their destination; answers from it get the
// virtual ones as their source, by the backend's address alone: so the load balancer needs no
// answers, and answers need no connection. With `direct`, packets to backends stay as they are but
// for their MAC address, and backends answer by themselves (direct server return). Checksums are
// updated incrementally. VLAN tags and IPv6 extension headers are looked through. All else passes
// unchanged.
//
// A backend is not available while set_health says that it is down, or while it is failing: with
// `syn_failures`, after that many SYNs in a row, over `answer_ms` or longer, without any SYN-ACK
// from it. `retry_ms` later it gets connections again, of which one unanswered makes it fail once
// more. Whoever drains gets no new connections, and neither does one that `update` doesn't list any
// more; both serve those that they have.
//
// Encrypted packets (docs/embark.md) are balanced like others: give encryptions of pool addresses;
// where the pool says `nat`, ports are in clear, and else `port` 0 stands for all ports. When a
// gateway changes its keys, `replace_connections` gives clients and addresses their new
// encryptions. A gateway of backends may have the old key for longer: with `keep_old`, answers from
// old addresses of backends get the old virtual ones, until they are forgotten. What clients still
// send to old virtual addresses is not balanced.
//
// Family: network functions
// Gates: in 2, out 2. Input 0 is from clients and leaves by output 1; input 1 is from backends and
// leaves by output 0. So the pair of number 0 is the clients' side.
// Arguments: L4LBArg
// Commands:
//   update               replaces services and backends as one; what is listed again stays as it is
//   set_health           whether a backend is up, as a checker has found
//   set_draining         whether a backend gets new connections
//   get_status           what each backend has; a batch in flight may be missing
//   get_connections      all connections, all addresses, and old ones that are kept
//   replace_connections  other endpoints of clients, other addresses of services and backends, old
//                        ones to keep or to forget, all or none; connections stay with their
//                        backends, which keep their state. Clients without a connection are
//                        counted, and no error
// Metadata: none.
// Drop reasons:
//   "no backend"  a new connection, and no backend is available
//   "fragment"    to the address of a service: only the first piece has ports
// Events:
//   backend_failing  a backend did not answer: its number in get_status, and how many SYNs
// Limits: one worker. Packets of connections that find the table of `max_flows` full are counted as
// untracked: hashing still keeps them where they are, as long as the list of backends stays. Of a
// connection only the client's FIN and RST are seen. ICMP errors about a connection pass unchanged.
// All commands pause the workers; update and replace_connections for about 1 ms per service, the
// latter and get_connections for some 4 and 10 us per connection. One answer of get_connections has
// 700,000 at most (64 MiB).
// Method: FlowSteer's table, in which batches look up in stages with prefetch. Memory is taken at
// creation, 74 bytes per flow of `max_flows`; 32 KB per service.
// Origin: original to this project; the hashing is Maglev's (l4_lb_services.h).
#include "nf/l4_lb.h"

#include "modules/checksum_change.h"

namespace e2 {
namespace {

constexpr uint64_t kDefaultTimeoutMs = 300'000;
constexpr uint64_t kDefaultRetryMs = 10'000;
constexpr uint64_t kDefaultAnswerMs = 1'000;
constexpr uint64_t kMostMs = 1'000ULL * 60 * 60 * 24 * 365;
constexpr uint64_t kNsPerMs = 1'000'000;
constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kAck = 16;

Status read_span(const Args& args, const char* name, uint64_t absent, uint64_t& ns) {
  const uint64_t ms = args[name].as_uint() == 0 ? absent : args[name].as_uint();
  ns = ms * kNsPerMs;
  if (ms <= kMostMs) return {};
  return Status::invalid(std::string("L4LB.") + name + " is " + std::to_string(ms) +
                         "; must be between 1 and " + std::to_string(kMostMs));
}

bool starts(uint8_t tcp_flags) { return (tcp_flags & (kFin | kSyn | kRst | kAck)) == kSyn; }

// What is needed of a packet's headers after they were looked at: 8 bytes that are written at once.
struct Spot {
  uint16_t l3_off;
  uint16_t l4_off;
  uint8_t ip_version;
  uint8_t ip_proto;
  uint8_t tcp_flags;  // of UDP none
  uint8_t unused;
};
inline Spot spot_of(const Headers& h) {
  const uint8_t flags = h.ip_proto == kProtoTcp ? h.tcp_flags : 0;
  return {h.l3_off, h.l4_off, h.ip_version, h.ip_proto, flags, 0};
}

// One end of a TCP or UDP packet that is whole; without protocol where it is none. In registers:
// what was written in parts could not be read as one yet.
inline LbEndpoint load_end(const uint8_t* data, const Headers& h, bool destination) {
  const uint8_t* const ip = data + h.l3_off;
  uint64_t words[2] = {};
  if (h.ip_version == 4) {
    uint32_t address;
    std::memcpy(&address, ip + (destination ? 16 : 12), sizeof address);
    words[0] = address;
  } else {
    std::memcpy(&words[0], ip + (destination ? 24 : 8), 8);
    std::memcpy(&words[1], ip + (destination ? 32 : 16), 8);
  }
  return {{words[0], words[1]},
          LbEndpoint::make_rest(destination ? h.dport : h.sport, h.ip_proto, h.ip_version)};
}

inline void load_key(const uint8_t* data, const Headers& h, FlowKey& key) {
  key.words[0] = flow_last_word(h);
  const uint8_t* const ip = data + h.l3_off;
  if (h.ip_version == 4) {
    std::memcpy(key.words + 1, ip + 12, 8);
  } else {
    std::memcpy(key.words + 1, ip + 8, 32);
  }
}

bool has_ports(const Headers& h) {
  return h.l4_off != 0 && (h.ip_proto == kProtoTcp || h.ip_proto == kProtoUdp);
}

// Writes an end; `address_change` is what its address adds to the complement of a checksum. Port 0
// leaves the port as it is.
void rewrite(uint8_t* data, Spot h, bool destination, const LbEndpoint& end,
             uint32_t address_change) {
  uint8_t* const ip = data + h.l3_off;
  uint8_t* const l4 = data + h.l4_off;
  uint8_t* const port = l4 + (destination ? 2 : 0);
  uint32_t change = address_change;
  if (end.port() != 0) {
    change += change16(load_be16(port), end.port());
    store_be16(port, end.port());
  }
  if (h.ip_version == 4) {
    std::memcpy(ip + (destination ? 16 : 12), end.address, 4);
    update_checksum(ip + 10, address_change);
  } else {
    std::memcpy(ip + (destination ? 24 : 8), end.address, 16);
  }
  if (h.ip_proto == kProtoTcp) {
    update_checksum(l4 + 16, change);
  } else {
    update_udp_checksum(l4 + 6, change);
  }
}

}  // namespace

Status L4LB::init(Host&, const Args& args) {
  no_backend_ = add_drop_reason("no backend");
  fragment_ = add_drop_reason("fragment");
  failing_ = add_event("backend_failing", {"backend", "unanswered_syns"});
  Status status = aging_.init(args, "L4LB", kDefaultTimeoutMs);
  if (status.ok()) status = services_.read(args["services"].as_list(), "L4LB.services");
  if (!status.ok()) return status;
  syn_failures_ = args["syn_failures"].as_uint();
  status = read_span(args, "answer_ms", kDefaultAnswerMs, answer_ns_);
  if (status.ok()) status = read_span(args, "retry_ms", kDefaultRetryMs, retry_ns_);
  if (!status.ok()) return status;
  return FlowAging::make_table(args, "L4LB", "max_flows", table_);
}

void L4LB::process(Context& ctx, Batch& batch, Gate in_gate) {
  const uint64_t now = aging_.advance(ctx.now_ns);
  aging_.sweep_in_time(table_, now, [this](uint32_t at) { end_flow(at); });
  Gate gates[kMaxBatch];
  if (in_gate == 0) {
    to_backends(batch, now, gates);
  } else {
    to_clients(batch, gates);
  }
  emit_by_gate(ctx, batch, gates);
}

void L4LB::to_backends(Batch& batch, uint64_t now, Gate* gates) {
  Spot spots[kMaxBatch];
  FlowKey keys[kMaxBatch];
  uint64_t places[kMaxBatch];
  uint32_t services[kMaxBatch];
  PacketMask ours = 0;
  for (uint32_t i = 0; i < batch.size; ++i) {
    const uint8_t* const data = batch[i]->data();
    Headers h = parse_headers(data, batch[i]->len());
    gates[i] = 1;
    if (h.ip_version == 0) continue;
    LbEndpoint end = load_end(data, h, true);
    if (h.fragment || h.more_fragments) {
      end.rest = LbEndpoint::make_rest(0, 0, h.ip_version);
      if (services_.has_address(end)) gates[i] = drop_gate(fragment_);
      continue;
    }
    if (!has_ports(h)) continue;
    services[i] = services_.find_service(end);
    if (services[i] == LbServices::kNone) continue;
    if (h.ip_version == 6 && ipv6_goes_elsewhere(data, h.l3_off, h.l4_off)) continue;
    ours |= PacketMask{1} << i;
    spots[i] = spot_of(h);
    load_key(data, h, keys[i]);
    places[i] = table_.place(keys[i]);
    table_.prefetch_bucket(places[i]);
  }
  uint32_t found[kMaxBatch];
  for (PacketMask left = ours; left != 0; left &= left - 1) {
    const auto i = static_cast<uint32_t>(__builtin_ctz(left));
    found[i] = table_.first_candidate(places[i]);
    if (found[i] != FlowTable::kNone) table_.prefetch_entry(keys[i], found[i]);
  }
  for (PacketMask left = ours; left != 0; left &= left - 1) {
    const auto i = static_cast<uint32_t>(__builtin_ctz(left));
    const uint32_t at = found[i];
    const uint8_t flags = spots[i].tcp_flags;
    uint32_t number;
    // A SYN may begin a connection anew.
    if (at != FlowTable::kNone && table_.same(keys[i], at) && aging_.alive(table_[at], now) &&
        (flags & kSyn) == 0) {
      number = table_[at].gate;
      follow(table_[at], flags, now);
    } else {
      number = choose(keys[i], places[i], services_.service(services[i]), flags, now);
    }
    if (number == LbServices::kNone) {
      gates[i] = drop_gate(no_backend_);
      continue;
    }
    const LbBackend& backend = services_.backend(number);
    uint8_t* const data = batch[i]->data();
    if (backend.direct) {
      std::memcpy(data, backend.mac, sizeof backend.mac);
    } else {
      rewrite(data, spots[i], true, backend.endpoint, backend.to_change);
    }
    if (starts(flags)) note_syn(number, now);
  }
}

// The backend of a packet that may be its flow's first; kNone where none is available.
uint32_t L4LB::choose(const FlowKey& key, uint64_t place, const LbService& service,
                      uint8_t tcp_flags, uint64_t now) {
  uint32_t at = table_.find(key, place);
  if (at != FlowTable::kNone) {
    const LbBackend& backend = services_.backend(table_[at].gate);
    const bool stays =
        aging_.alive(table_[at], now) && !(starts(tcp_flags) && !backend.available(now));
    if (stays) {
      follow(table_[at], tcp_flags, now);
      return table_[at].gate;
    }
    end_flow(at);
  }
  const uint64_t hash =
      key.ipv6()
          ? flow_hash_ipv6({key.words[1], key.words[2], key.words[3], key.words[4]}, key.words[0])
          : flow_hash_ipv4(key.words[1], key.words[0]);
  const uint32_t number = services_.pick(service, hash, now);
  if (number == LbServices::kNone) return number;
  if (!aging_.has_room(table_, now, [this](uint32_t ended) { end_flow(ended); })) {
    untracked_ = untracked_ + 1;
    return number;
  }
  LbBackend& backend = services_.backend(number);
  backend.connections = backend.connections + 1;
  at = table_.add(key, place, 0);
  FlowEntry& entry = table_[at];
  entry.gate = static_cast<uint16_t>(number);
  entry.split = 0;
  entry.ends = 0;
  entry.state = FlowEntry::kUsed;
  backend.flows = backend.flows + 1;
  follow(entry, tcp_flags, now);
  return number;
}

void L4LB::follow(FlowEntry& entry, uint8_t tcp_flags, uint64_t now) {
  entry.used_ns = now;
  if ((tcp_flags & (kFin | kSyn | kRst)) == 0) return;
  const bool ends = (tcp_flags & (kFin | kRst)) != 0;
  entry.state = ends ? FlowEntry::kUsed | FlowEntry::kClosing : FlowEntry::kUsed;
}

void L4LB::note_syn(uint32_t number, uint64_t now) {
  if (syn_failures_ == 0) return;
  LbBackend& backend = services_.backend(number);
  if (backend.direct) return;  // whose answers nobody sees here
  const uint64_t unanswered = backend.unanswered_syns + 1;
  if (unanswered == 1) backend.asked_ns = now;
  backend.unanswered_syns = unanswered;
  // Many may be on their way at once.
  if (unanswered < syn_failures_ || now - backend.asked_ns < answer_ns_) return;
  backend.retry_ns = now + retry_ns_;
  if (!backend.failing) post_event(failing_, {number, unanswered});
  backend.failing = true;
}

void L4LB::to_clients(Batch& batch, Gate* gates) {
  for (uint32_t i = 0; i < batch.size; ++i) {
    uint8_t* const data = batch[i]->data();
    Headers h = parse_headers(data, batch[i]->len());
    gates[i] = 0;
    if (h.ip_version == 0 || !has_ports(h) || h.fragment || h.more_fragments) continue;
    const LbEndpoint source = load_end(data, h, false);
    const uint32_t number = services_.find_backend(source);
    const LbKept* const old = number == LbServices::kNone ? services_.find_kept(source) : nullptr;
    if (number == LbServices::kNone && old == nullptr) continue;
    LbBackend& backend = services_.backend(old == nullptr ? number : old->number);
    if (h.ip_proto == kProtoTcp && (h.tcp_flags & (kSyn | kAck)) == (kSyn | kAck)) {
      backend.unanswered_syns = 0;
      backend.failing = false;
    }
    if (old == nullptr) {
      rewrite(data, spot_of(h), false, backend.virtual_end, backend.from_change);
    } else {
      rewrite(data, spot_of(h), false, old->virtual_end, old->change);
    }
  }
}

std::string L4LB::description() const {
  return std::to_string(table_.size()) + " flows, " + std::to_string(services_.count()) +
         " services";
}

namespace {

const ModuleClass kClass = {
    "L4LB",
    "l4_lb",
    "balances connections to virtual addresses over backends",
    "L4LBArg",
    2,
    2,
    {{"update", "L4LBCommandUpdateArg", "EmptyArg", false, command(&L4LB::update)},
     {"set_health", "L4LBCommandSetHealthArg", "EmptyArg", false, command(&L4LB::set_health)},
     {"set_draining", "L4LBCommandSetDrainingArg", "EmptyArg", false, command(&L4LB::set_draining)},
     {"get_status", "L4LBCommandGetStatusArg", "L4LBCommandGetStatusResponse", false,
      command(&L4LB::get_status)},
     {"get_connections", "L4LBCommandGetConnectionsArg", "L4LBCommandGetConnectionsResponse", false,
      command(&L4LB::get_connections)},
     {"replace_connections", "L4LBCommandReplaceConnectionsArg",
      "L4LBCommandReplaceConnectionsResponse", false, command(&L4LB::replace_connections)}},
    make_module<L4LB>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
