// SPDX-License-Identifier: BSD-3-Clause
// IPLookup: sends each packet to the gate of the longest prefix that holds its destination address.
//
// Knows IPv4 and IPv6, and looks through VLAN tags. Prefix length 0 sets the default gate of that
// version (0.0.0.0 or ::); without one, packets that no prefix holds are dropped.
//
// Family: matching
// Gates: in 1, out 8192. Gate 8192 in a rule drops.
// Arguments: IPLookupArg
// Commands:
//   add     adds a rule, or replaces its gate
//   delete  removes a rule; ENOENT where there is none
//   clear   removes all rules, default gates as well
// Metadata: none.
// Drop reasons:
//   "no route"  no prefix holds the address
//   "rule"      gate 8192 in a rule
//   "not IP"    neither IPv4 nor IPv6, or an IP header that is cut or malformed
// Method: DIR-24-8 for IPv4; for IPv6 one hash table per length, longest first (route_table.h).
// Commands change them while packets flow (live_table.h).
// Origin: the module of this name in BESS, which knows IPv4 without VLAN tags; the code is new.
#include <arpa/inet.h>

#include "host/headers.h"
#include "host/live_table.h"
#include "modules/gate_args.h"
#include "modules/route_table.h"

namespace e2 {
namespace {

struct Prefix {
  bool ipv4 = true;
  uint32_t length = 0;
  uint32_t v4 = 0;  // host order
  MatchKey v6;
};

Status read_prefix(const Args& args, const std::string& where, Prefix& prefix) {
  const std::string& text = args["prefix"].as_string();
  if (text.empty()) return Status::invalid(where + "prefix is missing");
  uint8_t bytes[16] = {};
  prefix.ipv4 = inet_pton(AF_INET, text.c_str(), bytes) == 1;
  if (!prefix.ipv4 && inet_pton(AF_INET6, text.c_str(), bytes) != 1) {
    return Status::invalid(where + "prefix: '" + text + "' is not an IPv4 or IPv6 address");
  }
  const uint64_t most = prefix.ipv4 ? 32 : 128;
  const uint64_t length = args["prefix_len"].as_uint();
  if (length > most) {
    return Status::invalid(where + "prefix_len: is " + std::to_string(length) + "; must be 0 to " +
                           std::to_string(most));
  }
  prefix.length = static_cast<uint32_t>(length);
  bool extra = false;
  if (prefix.ipv4) {
    prefix.v4 = load_be32(bytes);
    extra = length < 32 && (prefix.v4 & (~0u >> length)) != 0;
  } else {
    MatchKey address;
    std::memcpy(address.bytes(), bytes, sizeof bytes);
    prefix.v6 = Ipv6Routes::masked(address, prefix.length);
    extra = std::memcmp(prefix.v6.bytes(), bytes, sizeof bytes) != 0;
  }
  if (extra) {
    return Status::invalid(where + "prefix: " + text + "/" + std::to_string(length) +
                           " has bits beyond its length; they must be 0");
  }
  return {};
}

class IPLookup final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    no_route_ = drop_gate(add_drop_reason("no route"));
    rule_drop_ = drop_gate(add_drop_reason("rule"));
    not_ip_ = drop_gate(add_drop_reason("not IP"));
    max_rules_ = args["max_rules"].as_uint();
    return routes_.try_change([this](Routes& routes) {
      routes.default_v4 = no_route_;
      routes.default_v6 = no_route_;
      return routes.v4.init();
    });
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    uint32_t v4[kMaxBatch];
    KeyBatch v6;
    uint8_t v4_index[kMaxBatch];
    uint8_t v6_index[kMaxBatch];
    uint32_t v4_count = 0;
    uint32_t v6_count = 0;
    auto routes = routes_.read(ctx);
    for (uint32_t i = 0; i < batch.size; ++i) {
      const uint8_t* data = batch[i]->data();
      Headers headers = parse_ip_headers(data, batch[i]->len());
      gates[i] = not_ip_;
      if (headers.ip_version == 4) {
        v4[v4_count] = load_be32(data + headers.l3_off + 16);
        routes->v4.prefetch(v4[v4_count]);
        v4_index[v4_count++] = static_cast<uint8_t>(i);
      } else if (headers.ip_version == 6) {
        std::memcpy(&v6.words[0][v6_count], data + headers.l3_off + 24, 8);
        std::memcpy(&v6.words[1][v6_count], data + headers.l3_off + 32, 8);
        v6_index[v6_count++] = static_cast<uint8_t>(i);
      }
    }
    const Gate default_v4 = routes->default_v4;
    for (uint32_t i = 0; i < v4_count; ++i) {
      Gate gate = 0;
      gates[v4_index[i]] = routes->v4.find(v4[i], gate) ? gate : default_v4;
    }
    if (v6_count != 0) {
      Gate v6_gates[kMaxBatch];
      for (uint32_t i = 0; i < v6_count; ++i) v6_gates[i] = routes->default_v6;
      routes->v6.find_batch(v6, v6_count, v6_gates);
      for (uint32_t i = 0; i < v6_count; ++i) gates[v6_index[i]] = v6_gates[i];
    }
    routes.release();
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override {
    return std::to_string(routes_.look()->size()) + " rules";
  }

  Status add(const Args& args, Args&) {
    Prefix prefix;
    Gate gate = 0;
    Status status = read_prefix(args, "add: ", prefix);
    if (status.ok()) status = read_gate(args["gate"], "add: gate", rule_drop_, gate);
    if (!status.ok()) return status;
    return routes_.try_change([&](Routes& routes) {
      if (prefix.length == 0) {
        routes.fallback(prefix) = gate;
        return Status{};
      }
      if (max_rules_ != 0 && routes.size() >= max_rules_ && !routes.has(prefix)) {
        return Status::error(
            ENOSPC, "add: the table has its max_rules of " + std::to_string(max_rules_) + " rules");
      }
      if (prefix.ipv4) {
        routes.v4.add(prefix.v4, prefix.length, gate);
      } else {
        routes.v6.add(prefix.v6, prefix.length, gate);
      }
      return Status{};
    });
  }

  Status remove(const Args& args, Args&) {
    Prefix prefix;
    Status status = read_prefix(args, "delete: ", prefix);
    if (!status.ok()) return status;
    return routes_.try_change([&](Routes& routes) {
      if (prefix.length == 0) {
        routes.fallback(prefix) = no_route_;
        return Status{};
      }
      const bool found = prefix.ipv4 ? routes.v4.erase(prefix.v4, prefix.length)
                                     : routes.v6.erase(prefix.v6, prefix.length);
      if (found) return Status{};
      return Status::error(ENOENT, "delete: no rule " + args["prefix"].as_string() + "/" +
                                       std::to_string(prefix.length));
    });
  }

  Status clear(const Args&, Args&) {
    routes_.change([this](Routes& routes) {
      routes.v4.clear();
      routes.v6.clear();
      routes.default_v4 = no_route_;
      routes.default_v6 = no_route_;
    });
    return {};
  }

 private:
  struct Routes {
    Ipv4Routes v4;
    Ipv6Routes v6;
    Gate default_v4 = 0;
    Gate default_v6 = 0;

    size_t size() const { return v4.size() + v6.size(); }
    bool has(const Prefix& prefix) const {
      return prefix.ipv4 ? v4.has(prefix.v4, prefix.length) : v6.has(prefix.v6, prefix.length);
    }
    Gate& fallback(const Prefix& prefix) { return prefix.ipv4 ? default_v4 : default_v6; }
  };

  Live<Routes> routes_;
  uint64_t max_rules_ = 0;
  Gate no_route_ = 0;
  Gate rule_drop_ = 0;
  Gate not_ip_ = 0;
};

const ModuleClass kClass = {
    "IPLookup",
    "ip_lookup",
    "performs Longest Prefix Match on IPv4 and IPv6 packets",
    "IPLookupArg",
    1,
    kMaxGates,
    {{"add", "IPLookupCommandAddArg", "EmptyArg", true, command(&IPLookup::add)},
     {"delete", "IPLookupCommandDeleteArg", "EmptyArg", true, command(&IPLookup::remove)},
     {"clear", "EmptyArg", "EmptyArg", true, command(&IPLookup::clear)}},
    make_module<IPLookup>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
