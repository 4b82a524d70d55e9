// SPDX-License-Identifier: BSD-3-Clause
// HashLB: spreads packets over gates so that all packets of a flow take the same one.
//
// | mode   | what is hashed                                                                       |
// |--------|--------------------------------------------------------------------------------------|
// | l2     | both MAC addresses                                                                   |
// | l3     | both IPv4 or IPv6 addresses                                                          |
// | l4     | addresses, protocol and both ports; no ports for fragments, so that a datagram stays |
// |        | together, and for protocols without ports                                            |
// | fields | the bytes of the fields; bytes beyond the end of the packet count as 0               |
//
// VLAN tags are looked through. l3 and l4 fall back to l2 for packets that are not IP. l2, l3 and
// l4 are symmetric: both directions of a flow take the same gate.
//
// Family: distribution
// Gates: in 1, out 8192. A gate of 8192 in the list drops its share.
// Arguments: HashLBArg
// Commands:
//   set_mode   changes what is hashed
//   set_gates  changes the gates
// Metadata: none.
// Drop reasons:
//   "no gates"   the list is empty
//   "gate 8192"  the share of gate 8192
// Origin: the module of this name in BESS, whose hash values are others; the code is new.
#include "host/headers.h"
#include "host/live_table.h"
#include "modules/field_key.h"
#include "modules/gate_args.h"

namespace e2 {
namespace {

constexpr size_t kMaxListedGates = 16384;

// The upper half of a hash is the part to use. Both halves of the factor are far from simple
// fractions of 2^32, so that counting up in any byte of a word spreads evenly.
uint64_t mix(uint64_t sum, uint64_t word) {
  sum = (sum ^ word) * 0xd6e8feb89e3779b1ULL;
  return sum ^ sum >> 32;
}

constexpr uint64_t kSeed = 0x9e3779b97f4a7c15ULL;

uint64_t load_word(const uint8_t* from) {
  uint64_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

uint64_t hash_l2(const Packet& packet) {
  uint8_t macs[16] = {};
  std::memcpy(macs, packet.data(), packet.len() < 12 ? packet.len() : 12);
  const uint64_t mask = (1ULL << 48) - 1;
  return mix(kSeed, (load_word(macs) ^ load_word(macs + 6)) & mask);
}

// Addresses, and where kWithPorts the protocol and ports as well.
template <bool kWithPorts>
uint64_t hash_ip(const Packet& packet) {
  const uint8_t* data = packet.data();
  Headers h = kWithPorts ? parse_headers(data, packet.len()) : find_ip(data, packet.len());
  if (h.ip_version == 0) return hash_l2(packet);
  const uint8_t* ip = data + h.l3_off;
  uint64_t l4 = 0;
  if (kWithPorts) {
    const bool whole = !h.fragment && !h.more_fragments;
    l4 = static_cast<uint64_t>(h.ip_proto) << 16 | (whole ? h.sport ^ h.dport : 0);
  }
  if (h.ip_version == 4) return mix(kSeed, l4 << 32 | (load_be32(ip + 12) ^ load_be32(ip + 16)));
  const uint64_t high = mix(kSeed, load_word(ip + 8) ^ load_word(ip + 24));
  return mix(mix(high, load_word(ip + 16) ^ load_word(ip + 32)), l4);
}

class HashLB final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    no_gates_ = add_drop_reason("no gates");
    gate_drop_ = drop_gate(add_drop_reason("gate 8192"));
    Status status = read_list(args, "HashLB.gates");
    if (!status.ok()) return status;
    if (args["mode"].as_string().empty() && args["fields"].as_list().empty()) return {};
    return read_mode(args, "HashLB.");
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    auto way = way_.read(ctx);
    if (way->gates.empty()) {
      way.release();
      drop(ctx, batch, no_gates_);
      return;
    }
    uint64_t hashes[kMaxBatch];
    switch (way->hash.mode) {
      case Mode::kL2:
        for (uint32_t i = 0; i < batch.size; ++i) hashes[i] = hash_l2(*batch[i]);
        break;
      case Mode::kL3:
        for (uint32_t i = 0; i < batch.size; ++i) hashes[i] = hash_ip<false>(*batch[i]);
        break;
      case Mode::kL4:
        for (uint32_t i = 0; i < batch.size; ++i) hashes[i] = hash_ip<true>(*batch[i]);
        break;
      case Mode::kFields:
        hash_fields(way->hash.fields, batch, hashes);
        break;
    }
    Gate gates[kMaxBatch];
    const uint64_t count = way->gates.size();
    const Gate* const list = way->gates.data();
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = list[(hashes[i] >> 32) * count >> 32];
    }
    way.release();
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override {
    const auto way = way_.look();
    return std::to_string(way->gates.size()) + " gates, " +
           std::to_string(way->hash.fields.size()) + " fields";
  }

  Status set_mode(const Args& args, Args&) { return read_mode(args, "set_mode: "); }

  Status set_gates(const Args& args, Args&) { return read_list(args, "set_gates: gates"); }

 private:
  enum class Mode : uint8_t { kL2, kL3, kL4, kFields };

  struct Hash {
    Mode mode = Mode::kL4;
    KeyLayout fields;
  };
  struct Way {
    std::vector<Gate> gates;
    Hash hash;
  };

  Status read_list(const Args& args, const std::string& where) {
    std::vector<Gate> gates;
    Status status = read_gates(args["gates"].as_list(), where, kMaxListedGates, gate_drop_, gates);
    if (status.ok()) way_.change([&gates](Way& way) { way.gates = gates; });
    return status;
  }

  Status read_mode(const Args& args, const std::string& where) {
    const std::string& mode = args["mode"].as_string();
    Hash hash;
    if (!args["fields"].as_list().empty()) {
      hash.mode = Mode::kFields;
      Status status = hash.fields.init(args["fields"].as_list(), {}, where + "fields", {});
      if (!status.ok()) return status;
    } else if (mode == "l2") {
      hash.mode = Mode::kL2;
    } else if (mode == "l3") {
      hash.mode = Mode::kL3;
    } else if (mode == "l4") {
      hash.mode = Mode::kL4;
    } else {
      return Status::invalid(where + "mode: is '" + mode + "'; available LB modes: l2, l3, l4");
    }
    way_.change([&hash](Way& way) { way.hash = hash; });
    return {};
  }

  void hash_fields(const KeyLayout& fields, const Batch& batch, uint64_t* hashes) const {
    KeyBatch keys;
    fields.load(*this, batch, keys);
    for (uint32_t i = 0; i < batch.size; ++i) hashes[i] = kSeed;
    for (uint32_t w = 0; w < fields.words(); ++w) {
      for (uint32_t i = 0; i < batch.size; ++i) hashes[i] = mix(hashes[i], keys.words[w][i]);
    }
  }

  Live<Way> way_;
  uint32_t no_gates_ = 0;
  Gate gate_drop_ = 0;
};

const ModuleClass kClass = {
    "HashLB",
    "hash_lb",
    "splits packets on a flow basis with L2/L3/L4 header fields",
    "HashLBArg",
    1,
    kMaxGates,
    {{"set_mode", "HashLBCommandSetModeArg", "EmptyArg", true, command(&HashLB::set_mode)},
     {"set_gates", "HashLBCommandSetGatesArg", "EmptyArg", true, command(&HashLB::set_gates)}},
    make_module<HashLB>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
