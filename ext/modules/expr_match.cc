// SPDX-License-Identifier: BSD-3-Clause
// ExprMatch: sends each packet to the gate of the best rule over named header fields.
//
// All terms of a rule must hold; the highest priority wins, and the earlier rule among equals. A
// term holds where the packet has the field, and field & mask == value. Numbers stand for bytes in
// network order, in metadata too. Gate 8192 in a rule or as the default drops.
//
// | field             | bytes | the packet has it when                                         |
// |-------------------|-------|----------------------------------------------------------------|
// | eth.type          | 2     | its Ethernet header is complete; the type after all VLAN tags  |
// | vlan.id           | 2     | it has a VLAN tag; the outermost, 12 bits                      |
// | ip.version        | 1     | it is IPv4 or IPv6                                             |
// | ip.proto          | 1     | it is IP and its extension headers, if any, are complete       |
// | ip.src ip.dst     | 4     | it is IPv4                                                     |
// | ip6.src ip6.dst   | 16    | it is IPv6                                                     |
// | l4.sport l4.dport | 2     | it has a TCP, UDP or SCTP header                               |
// | meta.NAME         | 1-8   | always; 0 where no module before this one writes it            |
//
// Family: matching
// Gates: in 1, out 8192.
// Arguments: ExprMatchArg
// Commands:
//   add               appends rules, all or none
//   clear             removes all rules
//   set_default_gate  where packets go that match no rule
// Metadata: reads each NAME that rules mention, together 16 bytes at most.
// Drop reasons:
//   "rule"      gate 8192 in a rule
//   "no match"  gate 8192 as the default
// Method: one 64-byte key per packet, looked up in a TupleSpace (tuple_space.h). Commands change it
// while packets flow (live_table.h).
// Origin: original to this project, in the manner of WildcardMatch.
#include "host/headers.h"
#include "host/live_table.h"
#include "modules/field_value.h"
#include "modules/tuple_space.h"

namespace e2 {
namespace {

constexpr size_t kMaxRules = 1u << 20;
constexpr uint32_t kMetaStart = 48;
constexpr uint32_t kMetaBytes = 16;
constexpr uint32_t kPresence = 10;

enum Presence : uint16_t {
  kHasNothing = 0,
  kHasEther = 1,
  kHasVlan = 2,
  kHasIp = 4,
  kHasProto = 8,
  kHasIp4 = 16,
  kHasIp6 = 32,
  kHasPorts = 64,
};

// IPv4 addresses share their place with the front of the IPv6 addresses.
struct Field {
  const char* name;
  uint32_t offset;
  uint32_t size;
  uint16_t presence;
  uint64_t max;
};
constexpr Field kFields[] = {
    {"eth.type", 0, 2, kHasEther, 0xffff},  {"vlan.id", 2, 2, kHasVlan, 0xfff},
    {"ip.proto", 4, 1, kHasProto, 0xff},    {"ip.version", 5, 1, kHasIp, 0xf},
    {"l4.sport", 6, 2, kHasPorts, 0xffff},  {"l4.dport", 8, 2, kHasPorts, 0xffff},
    {"ip.src", 16, 4, kHasIp4, 0xffffffff}, {"ip.dst", 32, 4, kHasIp4, 0xffffffff},
    {"ip6.src", 16, 16, kHasIp6, 0},        {"ip6.dst", 32, 16, kHasIp6, 0},
};

struct Meta {
  std::string name;
  uint32_t size;
  uint32_t offset;  // in the key
  size_t attr;
};

bool is_text(const Args& args) { return std::holds_alternative<std::string>(args.value()); }

// Word w of the key of packet i is keys.words[w][i].
void make_key(const uint8_t* data, const Headers& h, KeyBatch& keys, uint32_t i) {
  uint64_t has = kHasNothing;
  uint64_t front = 0;
  uint64_t dport = 0;
  uint64_t addresses[4] = {};
  if (h.l2_len != 0) {
    has |= kHasEther;
    front = __builtin_bswap16(h.ether_type);
  }
  if (h.has_vlan) {
    has |= kHasVlan;
    front |= static_cast<uint64_t>(__builtin_bswap16(h.vlan_tci & 0xfff)) << 16;
  }
  if (h.ip_version != 0) {
    has |= kHasIp;
    front |= static_cast<uint64_t>(h.ip_proto) << 32 | static_cast<uint64_t>(h.ip_version) << 40;
    if (h.l3_len != 0) has |= kHasProto;
    const uint8_t* ip = data + h.l3_off;
    if (h.ip_version == 4) {
      has |= kHasIp4;
      std::memcpy(&addresses[0], ip + 12, 4);
      std::memcpy(&addresses[2], ip + 16, 4);
    } else {
      has |= kHasIp6;
      std::memcpy(addresses, ip + 8, sizeof addresses);
    }
    bool ports = h.ip_proto == kProtoTcp || h.ip_proto == kProtoUdp || h.ip_proto == kProtoSctp;
    if (h.l4_off != 0 && ports) {
      has |= kHasPorts;
      front |= static_cast<uint64_t>(__builtin_bswap16(h.sport)) << 48;
      dport = __builtin_bswap16(h.dport);
    }
  }
  keys.words[0][i] = front;
  keys.words[kPresence / 8][i] = dport | has << (kPresence % 8 * 8);
  for (uint32_t w = 0; w < 4; w++) keys.words[2 + w][i] = addresses[w];
  for (uint32_t w = kMetaStart / 8; w < kMaxKeyWords; w++) keys.words[w][i] = 0;
}

struct MatchRule {
  MatchKey value;  // 0 wherever the mask is
  MatchKey mask;
  int64_t priority = 0;
  Gate gate = 0;
};

class ExprMatch final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    rule_reason_ = add_drop_reason("rule");
    default_reason_ = add_drop_reason("no match");
    for (const auto& entry : args["meta"].as_map()) {
      const Args& spec = entry.second;
      uint64_t size = spec.has("size") ? spec["size"].as_uint(0) : spec.as_uint(1);
      Status status = declare_meta(entry.first, size);
      if (!status.ok()) return status;
    }
    Status status = set_default(args["default_gate"], "ExprMatch.default_gate");
    if (!status.ok()) return status;
    return add_rules(args["rules"].as_list(), true);
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    KeyBatch keys;
    const uint64_t* hits[kMaxBatch];
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; i++) {
      const Packet* packet = batch[i];
      make_key(packet->data(), parse_headers(packet->data(), packet->len()), keys, i);
    }
    for (const Meta& meta : metas_) {
      int offset = attr_offset(meta.attr);
      if (offset < 0) continue;
      const uint32_t shift = meta.offset % 8 * 8;
      uint64_t* const column = keys.words[meta.offset / 8];
      for (uint32_t i = 0; i < batch.size; i++) {
        uint64_t word = 0;
        copy_word(reinterpret_cast<uint8_t*>(&word), batch[i]->metadata(offset), meta.size);
        column[i] |= word << shift;
        if (shift + 8 * meta.size > 64) keys.words[meta.offset / 8 + 1][i] |= word >> (64 - shift);
      }
    }
    for (uint32_t w = 0; w < kMaxKeyWords; w++) keys.pad(batch.size, w);
    auto rules = rules_.read(ctx);
    rules->space.find_batch(keys, batch.size, hits);
    const Gate fallback = rules->fallback;
    for (uint32_t i = 0; i < batch.size; i++) {
      gates[i] = hits[i] == nullptr ? fallback : TupleSpace::gate_of(hits[i]);
    }
    rules.release();
    emit_by_gate(ctx, batch, gates);
  }

  Status add(const Args& args, Args&) {
    const Args::List& list = args["rules"].as_list();
    if (list.empty()) return Status::invalid("add: rules is empty; give at least one rule");
    return add_rules(list, false);
  }

  Status clear(const Args&, Args&) {
    rules_.change([](Rules& rules) {
      rules.space.clear();
      rules.count = 0;
    });
    return {};
  }

  Status set_default_gate(const Args& args, Args&) {
    return set_default(args["gate"], "set_default_gate: gate");
  }

  std::string description() const override {
    return std::to_string(rules_.look()->count) + " rules";
  }

 private:
  struct Rules {
    TupleSpace space{kMaxKeyWords, 0, 0};
    size_t count = 0;  // with those that can't win
    Gate fallback = 0;
  };

  Status declare_meta(const std::string& name, uint64_t size) {
    if (name.empty()) return Status::invalid("ExprMatch.meta: an attribute has no name");
    if (size != 1 && size != 2 && size != 4 && size != 8) {
      return Status::invalid("ExprMatch.meta: size of '" + name + "' is " + std::to_string(size) +
                             "; must be 1, 2, 4 or 8 bytes");
    }
    if (meta_end_ + size > kMetaStart + kMetaBytes) {
      return Status::invalid("ExprMatch.meta: no room for '" + name +
                             "'; all attributes together have at most 16 bytes");
    }
    uint32_t bytes = static_cast<uint32_t>(size);
    metas_.push_back({name, bytes, meta_end_, add_attr(name, bytes, Access::kRead)});
    meta_end_ += bytes;
    return {};
  }

  Status to_gate(const Args& arg, const std::string& where, uint32_t reason, Gate& gate) const {
    uint64_t value = arg.as_uint();
    if (value > kMaxGates || is_text(arg)) {
      return Status::invalid(where + " must be a number below " + std::to_string(kMaxGates) +
                             ", or " + std::to_string(kMaxGates) + " to drop");
    }
    gate = value == kMaxGates ? drop_gate(reason) : static_cast<Gate>(value);
    return {};
  }

  Status set_default(const Args& arg, const std::string& where) {
    Gate gate = 0;
    Status status = to_gate(arg, where, default_reason_, gate);
    if (status.ok()) rules_.change([gate](Rules& rules) { rules.fallback = gate; });
    return status;
  }

  Status find_field(const std::string& name, const std::string& where, bool declare, Field& field) {
    for (const Field& known : kFields) {
      if (name != known.name) continue;
      field = known;
      return {};
    }
    if (name.compare(0, 5, "meta.") != 0 || name.size() == 5) {
      return Status::invalid(where + ": no field '" + name + "'; known are eth.type vlan.id " +
                             "ip.version ip.proto ip.src ip.dst ip6.src ip6.dst l4.sport " +
                             "l4.dport meta.NAME");
    }
    const std::string attr = name.substr(5);
    for (int round = 0; round < 2; round++) {
      for (const Meta& meta : metas_) {
        if (meta.name != attr) continue;
        field = {"meta", meta.offset, meta.size, kHasNothing, ~0ULL >> (64 - 8 * meta.size)};
        return {};
      }
      if (!declare) break;
      Status status = declare_meta(attr, 1);
      if (!status.ok()) return status;
    }
    return Status::invalid(where + ": attribute '" + attr +
                           "' was not named when the module was made; list it in `meta`");
  }

  // Value and mask of one term as bytes of the field.
  Status read_term(const Args& term, const Field& field, const std::string& where, uint8_t* value,
                   uint8_t* mask) const {
    const std::string& bits = term["value_bin"].as_string();
    const std::string& mask_bits = term["mask_bin"].as_string();
    if (!bits.empty() || !mask_bits.empty() || field.max == 0) {
      if (bits.size() != field.size || (!mask_bits.empty() && mask_bits.size() != field.size)) {
        return Status::invalid(where + ": value_bin and mask_bin must have " +
                               std::to_string(field.size) + " bytes");
      }
      std::memcpy(value, bits.data(), field.size);
      std::memset(mask, 0xff, field.size);
      if (mask_bits.find_first_not_of('\0') != std::string::npos) {
        std::memcpy(mask, mask_bits.data(), field.size);
      }
    } else {
      uint64_t number = term["value"].as_uint();
      uint64_t mask_number = term["mask"].as_uint();
      if (mask_number == 0) mask_number = field.max;
      if (is_text(term["value"]) || is_text(term["mask"]) || number > field.max ||
          mask_number > field.max) {
        return Status::invalid(where + ": value and mask must be numbers up to " +
                               std::to_string(field.max));
      }
      for (uint32_t i = 0; i < field.size; i++) {
        uint32_t shift = 8 * (field.size - 1 - i);
        value[i] = static_cast<uint8_t>(number >> shift);
        mask[i] = static_cast<uint8_t>(mask_number >> shift);
      }
    }
    for (uint32_t i = 0; i < field.size; i++) {
      if ((value[i] & ~mask[i]) != 0) {
        return Status::invalid(where + ": value has bits outside mask and could never match");
      }
    }
    return {};
  }

  Status read_rule(const Args& args, const std::string& where, bool declare, MatchRule& rule) {
    Status status = to_gate(args["gate"], where + ".gate", rule_reason_, rule.gate);
    rule.priority = args["priority"].as_int();
    uint16_t has = kHasNothing;
    size_t index = 0;
    for (const Args& term : args["terms"].as_list()) {
      const std::string place = where + ".terms[" + std::to_string(index++) + "]";
      Field field = {};
      uint8_t value[16];
      uint8_t mask[16];
      const std::string& name = term["field"].as_string();
      if (status.ok()) status = find_field(name, place, declare, field);
      if (status.ok()) status = read_term(term, field, place, value, mask);
      if (!status.ok()) return status;
      has |= field.presence;
      bool clash = (has & kHasIp4) != 0 && (has & kHasIp6) != 0;
      for (uint32_t i = 0; i < field.size; i++) {
        uint8_t& old_value = rule.value.bytes()[field.offset + i];
        uint8_t& old_mask = rule.mask.bytes()[field.offset + i];
        clash |= ((old_value ^ value[i]) & old_mask & mask[i]) != 0;
        old_value |= value[i];
        old_mask |= mask[i];
      }
      if (clash) {
        return Status::invalid(place + " contradicts an earlier term: the rule could never match");
      }
    }
    std::memcpy(rule.value.bytes() + kPresence, &has, sizeof has);
    std::memcpy(rule.mask.bytes() + kPresence, &has, sizeof has);
    return status;
  }

  // Reads all rules first, so that a bad one leaves everything as it was.
  Status add_rules(const Args::List& list, bool declare) {
    std::vector<MatchRule> added(list.size());
    for (size_t i = 0; i < list.size(); i++) {
      Status status = read_rule(list[i], "rules[" + std::to_string(i) + "]", declare, added[i]);
      if (!status.ok()) return status;
    }
    return rules_.try_change([&added](Rules& rules) {
      if (rules.count + added.size() > kMaxRules) {
        const std::string most = std::to_string(kMaxRules);
        return Status::error(ENOSPC, "ExprMatch holds at most " + most + " rules");
      }
      for (const MatchRule& rule : added) insert(rule, rules.space);
      rules.count += added.size();
      return Status{};
    });
  }

  // Of rules that match just the same packets, only the best can ever win; a later one that does
  // is younger than all others of its priority.
  static void insert(const MatchRule& rule, TupleSpace& space) {
    const uint64_t* known = space.find(rule.value, rule.mask);
    if (known != nullptr) {
      if (TupleSpace::priority_of(known) >= rule.priority) return;
      space.erase(rule.value, rule.mask);
    }
    space.add(rule.value, rule.mask, rule.priority, rule.gate, {});
  }

  Live<Rules> rules_;
  std::vector<Meta> metas_;
  uint32_t meta_end_ = kMetaStart;
  uint32_t rule_reason_ = 0;
  uint32_t default_reason_ = 0;
};

const ModuleClass kClass = {
    "ExprMatch",
    "expr_match",
    "sends packets to the gate of the best rule over named header fields",
    "ExprMatchArg",
    1,
    kMaxGates,
    {{"add", "ExprMatchCommandAddArg", "EmptyArg", true, command(&ExprMatch::add)},
     {"clear", "EmptyArg", "EmptyArg", true, command(&ExprMatch::clear)},
     {"set_default_gate", "ExprMatchCommandSetDefaultGateArg", "EmptyArg", true,
      command(&ExprMatch::set_default_gate)}},
    make_module<ExprMatch>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
