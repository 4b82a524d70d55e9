// SPDX-License-Identifier: BSD-3-Clause
// L4LB's services and backends: who is behind a virtual endpoint, and which of them a new
// connection gets.
//
// That is consistent hashing by a lookup table (Eisenbud et al., Maglev, NSDI 2016, section 3.4):
// backends take turns in choosing places, each in an order of its own, so that each has its share
// and few places change when one comes or goes. A backend that is down keeps its places; who hits
// one of them tries others, in an order that depends on the connection. So nobody computes a table
// when a backend fails, and the connections of the others stay where they are.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "host/args.h"
#include "host/flow_hash.h"
#include "host/status.h"
#include "modules/flow_table.h"

namespace e2 {

// Address (IPv4 in the first 4 bytes), port, protocol, and IP version. Port 0 stands for all.
struct LbEndpoint {
  uint64_t address[2] = {};
  uint32_t rest = 0;

  static uint32_t make_rest(uint16_t port, uint8_t proto, uint8_t version) {
    return port | uint32_t{proto} << 16 | uint32_t{version} << 24;
  }
  uint16_t port() const { return static_cast<uint16_t>(rest); }
  uint8_t proto() const { return static_cast<uint8_t>(rest >> 16); }
  uint8_t version() const { return static_cast<uint8_t>(rest >> 24); }
  const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(address); }
  bool operator==(const LbEndpoint& other) const {
    return rest == other.rest && address[0] == other.address[0] && address[1] == other.address[1];
  }
  // Where its service's connections go depends on it: alike on every server.
  uint64_t hash() const { return flow_mix(address[0] ^ flow_mix(address[1] ^ rest)); }
  // A faster one, for tables in memory: only their owner chooses what is in them.
  uint64_t index_hash() const {
    return fold_multiply(address[0] ^ kFlowSeed, address[1] ^ (rest * kFlowSeed));
  }
  LbEndpoint with_port(uint16_t port) const {
    LbEndpoint other = *this;
    other.rest = make_rest(port, proto(), version());
    return other;
  }
  LbEndpoint with_address(const LbEndpoint& address) const {
    LbEndpoint other = address;
    other.rest = rest;
    return other;
  }
  LbEndpoint address_only() const {
    LbEndpoint other = *this;
    other.rest = make_rest(0, 0, version());
    return other;
  }
  std::string address_text() const;
  // From 4 or 16 bytes.
  static LbEndpoint from(const std::string& bytes, uint16_t port, uint8_t proto) {
    LbEndpoint endpoint;
    std::memcpy(endpoint.address, bytes.data(), bytes.size());
    endpoint.rest = make_rest(port, proto, bytes.size() == 4 ? 4 : 6);
    return endpoint;
  }
};

// What replacing one address by another adds to the complement of a checksum.
uint32_t address_change(const LbEndpoint& before, const LbEndpoint& after);

// Endpoints by number, for packets to look up.
class LbIndex {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  LbIndex() : slots_(1) {}
  void add(const LbEndpoint& endpoint, uint32_t number);
  uint32_t find(const LbEndpoint& endpoint) const {
    const Slot* const slots = slots_.data();
    for (size_t at = endpoint.index_hash();; ++at) {
      const Slot& slot = slots[at & mask_];
      if (slot.number == kNone || slot.endpoint == endpoint) return slot.number;
    }
  }

 private:
  struct Slot {
    LbEndpoint endpoint;
    uint32_t number = kNone;
  };
  std::vector<Slot> slots_;  // at most half of them are taken
  size_t mask_ = 0;
  size_t size_ = 0;
};

struct LbBackend {
  LbEndpoint endpoint;     // port 0: that of the packet
  LbEndpoint virtual_end;  // of its service
  uint32_t weight = 1;
  bool direct = false;
  uint8_t mac[6] = {};   // of a direct service
  bool used = false;     // the place is taken
  bool removed = false;  // it serves the connections that it has, and goes with the last
  bool draining = false;
  Field<bool> down{};     // so it was told
  Field<bool> failing{};  // SYNs were not answered
  Field<uint64_t> flows{};
  Field<uint64_t> connections{};
  Field<uint64_t> unanswered_syns{};
  uint64_t asked_ns = 0;     // the first of those SYNs
  uint64_t retry_ns = 0;     // a failing one gets a connection again
  uint32_t to_change = 0;    // what its address adds to the complement of a checksum
  uint32_t from_change = 0;  // and what the virtual one does on the way back

  bool available(uint64_t now) const { return !down && (!failing || now >= retry_ns); }
};

// What the endpoint of a backend was: answers from it get the virtual one of that time.
struct LbKept {
  LbEndpoint endpoint;
  LbEndpoint virtual_end;
  uint32_t number;  // of the backend
  uint32_t change;  // what the virtual address adds to the complement of a checksum
};

// Other addresses of services and backends, all or none.
struct LbMoves {
  LbIndex by_old;                // addresses
  std::vector<LbEndpoint> news;  // theirs
  std::vector<LbKept> kept;      // all that there are to be

  LbEndpoint of(const LbEndpoint& endpoint) const {
    const uint32_t number = by_old.find(endpoint.address_only());
    return number == LbIndex::kNone ? endpoint : endpoint.with_address(news[number]);
  }
};

struct LbService {
  LbEndpoint endpoint;
  bool direct = false;
  std::vector<uint16_t> members;  // backends that new connections may get
  std::vector<uint16_t> table;    // Maglev's; empty without members
};

class LbServices {
 public:
  static constexpr uint32_t kNone = LbIndex::kNone;
  static constexpr uint32_t kMostServices = 256;
  static constexpr uint32_t kMostBackends = 4096;
  static constexpr uint32_t kMostMembers = 1024;

  LbServices() : backends_(std::make_unique<LbBackend[]>(kMostBackends)) {}

  // A list of L4LBService, which replaces all; backends that are in it keep their state. On an
  // error nothing changes.
  Status read(const Args::List& list, const std::string& where);
  uint32_t count() const { return static_cast<uint32_t>(services_.size()); }
  const LbService& service(uint32_t i) const { return services_[i]; }
  LbBackend& backend(uint32_t i) const { return backends_[i]; }
  // By the destination of a packet; kNone where it isn't a service's.
  uint32_t find_service(const LbEndpoint& destination) const {
    return find(by_endpoint_, destination, service_ports_);
  }
  // By the source of an answer; kNone where it isn't a backend's.
  uint32_t find_backend(const LbEndpoint& source) const {
    return find(by_backend_, source, backend_ports_);
  }
  // By the source of an answer that no backend has any more; nullptr where none had it.
  const LbKept* find_kept(const LbEndpoint& source) const {
    if (kept_.empty()) return nullptr;
    const uint32_t found = find(by_kept_, source, {true, true});
    return found == kNone ? nullptr : &kept_[found];
  }
  const std::vector<LbKept>& kept() const { return kept_; }
  // Whether any service has that address, of which `rest` is only the version.
  bool has_address(const LbEndpoint& address) const { return addresses_.find(address) != kNone; }

  // Of a connection with that hash; kNone where no backend is available.
  uint32_t pick(const LbService& service, uint64_t hash, uint64_t now) const;

  // Makes tables anew, after a change of who drains.
  void make_tables();

  // Of services and then of backends, each once; without ports.
  std::vector<LbEndpoint> addresses() const;
  // Reads a list of other addresses; `keep_old` adds to what is kept. Nothing changes.
  Status read_moves(const Args::List& list, bool keep_old, LbMoves& moves) const;
  // Takes an address from what is kept.
  static Status forget(const std::string& text, const std::string& where, LbMoves& moves);
  // Services and backends keep their numbers and all else.
  void move(const LbMoves& moves);

 private:
  struct Reading;

  // Which ports endpoints have: whoever has one kind only is looked up once.
  struct Ports {
    bool any = false;  // some have port 0
    bool own = false;  // some have another
  };
  static uint32_t find(const LbIndex& index, const LbEndpoint& endpoint, Ports ports) {
    const uint32_t found = ports.own ? index.find(endpoint) : kNone;
    if (found != kNone || !ports.any) return found;
    return index.find(endpoint.with_port(0));
  }
  Status read_service(const Args& args, const std::string& where, Reading& reading) const;
  Status read_backend(const Args& args, const std::string& where, Reading& reading) const;
  void take_over(const Reading& reading);
  LbBackend& place_for(const LbEndpoint& endpoint) const;
  void make_indices();
  void set_kept(std::vector<LbKept> kept);
  Status check_moves(const LbMoves& moves) const;
  void make_table(LbService& service) const;

  std::vector<LbService> services_;
  std::unique_ptr<LbBackend[]> backends_;
  LbIndex by_endpoint_;
  LbIndex by_backend_;
  LbIndex addresses_;
  std::vector<LbKept> kept_;
  LbIndex by_kept_;
  Ports service_ports_;
  Ports backend_ports_;
};

}  // namespace e2
