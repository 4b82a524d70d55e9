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
#include "modules/field_key.h"
#include "modules/gate_args.h"

namespace e2 {
namespace {

constexpr size_t kMaxListedGates = 16384;

uint64_t mix(uint64_t sum, uint64_t word) {
  sum = (sum ^ word) * 0xd6e8feb86659fd93ULL;
  return sum ^ sum >> 32;
}

constexpr uint64_t kSeed = 0x9e3779b97f4a7c15ULL;

uint64_t load_word(const uint8_t* from) {
  uint64_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

uint64_t hash_l2(const uint8_t* data, uint32_t len) {
  uint8_t macs[16] = {};
  std::memcpy(macs, data, len < 12 ? len : 12);
  const uint64_t mask = (1ULL << 48) - 1;
  return mix(kSeed, (load_word(macs) ^ load_word(macs + 6)) & mask);
}

uint64_t hash_l3(const uint8_t* data, const Headers& headers) {
  const uint8_t* ip = data + headers.l3_off;
  if (headers.ip_version == 4) return mix(kSeed, load_be32(ip + 12) ^ load_be32(ip + 16));
  const uint64_t high = load_word(ip + 8) ^ load_word(ip + 24);
  const uint64_t low = load_word(ip + 16) ^ load_word(ip + 32);
  return mix(mix(kSeed, high), low);
}

uint64_t hash_l4(const uint8_t* data, const Headers& headers) {
  const bool whole = !headers.fragment && !headers.more_fragments;
  const uint32_t ports = whole ? headers.sport ^ headers.dport : 0;
  return mix(hash_l3(data, headers), static_cast<uint64_t>(headers.ip_proto) << 16 | ports);
}

class HashLB final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    no_gates_ = add_drop_reason("no gates");
    gate_drop_ = drop_gate(add_drop_reason("gate 8192"));
    Status status =
        read_gates(args["gates"].as_list(), "HashLB.gates", kMaxListedGates, gate_drop_, gates_);
    if (!status.ok()) return status;
    if (args["mode"].as_string().empty() && args["fields"].as_list().empty()) return {};
    return read_mode(args, "HashLB.");
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    if (gates_.empty()) {
      drop(ctx, batch, no_gates_);
      return;
    }
    uint64_t hashes[kMaxBatch];
    if (mode_ == Mode::kFields) {
      hash_fields(batch, hashes);
    } else {
      for (uint32_t i = 0; i < batch.size; ++i) hashes[i] = hash_packet(*batch[i]);
    }
    Gate gates[kMaxBatch];
    const uint64_t count = gates_.size();
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = gates_[(hashes[i] & 0xffffffff) * count >> 32];
    }
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override {
    return std::to_string(gates_.size()) + " gates, " + std::to_string(fields_.size()) + " fields";
  }

  Status set_mode(const Args& args, Args&) { return read_mode(args, "set_mode: "); }

  Status set_gates(const Args& args, Args&) {
    return read_gates(args["gates"].as_list(), "set_gates: gates", kMaxListedGates, gate_drop_,
                      gates_);
  }

 private:
  enum class Mode : uint8_t { kL2, kL3, kL4, kFields };

  Status read_mode(const Args& args, const std::string& where) {
    const std::string& mode = args["mode"].as_string();
    if (!args["fields"].as_list().empty()) {
      KeyLayout fields;
      Status status = fields.init(args["fields"].as_list(), {}, where + "fields", {});
      if (!status.ok()) return status;
      fields_ = std::move(fields);
      mode_ = Mode::kFields;
      return {};
    }
    if (mode == "l2") {
      mode_ = Mode::kL2;
    } else if (mode == "l3") {
      mode_ = Mode::kL3;
    } else if (mode == "l4") {
      mode_ = Mode::kL4;
    } else {
      return Status::invalid(where + "mode: is '" + mode + "'; available LB modes: l2, l3, l4");
    }
    fields_ = KeyLayout();
    return {};
  }

  uint64_t hash_packet(const Packet& packet) const {
    if (mode_ == Mode::kL2) return hash_l2(packet.data(), packet.len());
    const Headers headers = parse_headers(packet.data(), packet.len());
    if (headers.ip_version == 0) return hash_l2(packet.data(), packet.len());
    return mode_ == Mode::kL3 ? hash_l3(packet.data(), headers) : hash_l4(packet.data(), headers);
  }

  void hash_fields(const Batch& batch, uint64_t* hashes) const {
    MatchKey keys[kMaxBatch];
    fields_.load(*this, batch, keys);
    for (uint32_t i = 0; i < batch.size; ++i) {
      hashes[i] = kSeed;
      for (uint32_t w = 0; w < fields_.words(); ++w) hashes[i] = mix(hashes[i], keys[i].words[w]);
    }
  }

  std::vector<Gate> gates_;
  KeyLayout fields_;
  Mode mode_ = Mode::kL4;
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
    {{"set_mode", "HashLBCommandSetModeArg", "EmptyArg", false, command(&HashLB::set_mode)},
     {"set_gates", "HashLBCommandSetGatesArg", "EmptyArg", false, command(&HashLB::set_gates)}},
    make_module<HashLB>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
