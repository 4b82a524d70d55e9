// SPDX-License-Identifier: BSD-3-Clause
// WildcardMatch: sends each packet to the gate of the best rule that matches under its masks.
//
// Fields are bytes of the packet or metadata, see field_key.h. A packet matches when field & mask
// == value for every field; the highest priority wins, and the rule added first among equals.
// Numbers (value_int) are big-endian in `values` and `masks` and in host order in `valuesv`, for
// packets and attributes alike. Packets that match no rule go to the default gate, which is 8192
// (drop) at first; gate 8192 in a rule drops too.
//
// Family: matching
// Gates: in 1, out 8192.
// Arguments: WildcardMatchArg
// Commands:
//   add                 adds a rule, or replaces it
//   delete              removes a rule; ENOENT where there is none
//   clear               removes all rules
//   set_default_gate    where packets go that match no rule
//   get_initial_arg     the arguments
//   get_runtime_config  the default gate, and the rules sorted by priority, gate, masks and values,
//                       the order in which set_runtime_config adds them again
//   set_runtime_config  replaces the default gate and all rules, or nothing
// Metadata: reads the attributes of `fields`, writes those of `values`.
// Drop reasons:
//   "rule"       gate 8192 in a rule
//   "no match"   gate 8192 as the default
//   "too short"  the packet ends before the values to write
// Method: tuple space search (tuple_space.h). Cost grows with the number of different sets of
// masks, not with rules; there is no limit on either. Commands change them while packets flow
// (live_table.h).
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>

#include "modules/field_match.h"
#include "modules/tuple_space.h"

namespace e2 {
namespace {

class WildcardMatch final : public FieldMatch<TupleSpace> {
 public:
  Status init(Host&, const Args& args) override {
    rule_drop_ = drop_gate(add_drop_reason("rule"));
    default_drop_ = drop_gate(add_drop_reason("no match"));
    short_drop_ = drop_gate(add_drop_reason("too short"));
    return init_match(args, "WildcardMatch", {}, {},
                      [this] { return TupleSpace(fields_.words(), values_.words(), entries_); });
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    KeyBatch keys;
    const uint64_t* hits[kMaxBatch];
    Gate gates[kMaxBatch];
    fields_.load(*this, batch, keys);
    auto rules = rules_.read(ctx);
    rules->table.find_batch(keys, batch.size, hits);
    const Gate fallback = rules->fallback;
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = hits[i] == nullptr ? fallback : TupleSpace::gate_of(hits[i]);
    }
    write_values(batch, hits, TupleSpace::kValues, gates);
    rules.release();
    emit_by_gate(ctx, batch, gates);
  }

  Status add(const Args& args, Args&) {
    Rule rule;
    Status status = read_rule(args, "add: ", rule);
    if (status.ok()) rules_.change([&rule](Rules& rules) { insert(rule, rules.table); });
    return status;
  }

  Status remove(const Args& args, Args&) {
    MatchKey key;
    MatchKey mask;
    Status status = read_key(args, "delete: ", key, mask);
    if (!status.ok()) return status;
    return rules_.try_change([&](Rules& rules) {
      if (rules.table.erase(key, mask)) return Status{};
      return Status::error(ENOENT, "delete: rule doesn't exist");
    });
  }

  Status get_initial_arg(const Args&, Args& response) {
    response.set("fields", fields_.fields());
    if (!values_.empty()) response.set("values", values_.fields());
    if (entries_ != 0) response.set("entries", entries_);
    return {};
  }

  Status get_runtime_config(const Args&, Args& response) {
    struct Item {
      const TupleSpace::Tuple* tuple;
      const uint64_t* payload;
      const uint8_t* key;
    };
    std::vector<Item> items;
    const auto rules = rules_.look();
    for (const TupleSpace::Tuple* tuple : rules->table.tuples()) {
      for (size_t i = 0; i < tuple->table.size(); ++i) {
        items.push_back({tuple, tuple->table.payload(i), tuple->table.key_bytes(i)});
      }
    }
    const size_t bytes = fields_.words() * sizeof(uint64_t);
    std::sort(items.begin(), items.end(), [bytes](const Item& a, const Item& b) {
      if (TupleSpace::priority_of(a.payload) != TupleSpace::priority_of(b.payload)) {
        return TupleSpace::priority_of(a.payload) < TupleSpace::priority_of(b.payload);
      }
      const uint64_t gate_a = gate_number(TupleSpace::gate_of(a.payload));
      const uint64_t gate_b = gate_number(TupleSpace::gate_of(b.payload));
      if (gate_a != gate_b) return gate_a < gate_b;
      const int masks = std::memcmp(a.tuple->mask.words, b.tuple->mask.words, bytes);
      return masks != 0 ? masks < 0 : bytes != 0 && std::memcmp(a.key, b.key, bytes) < 0;
    });
    Args::List list;
    for (const Item& item : items) {
      Args rule;
      rule.set("priority", TupleSpace::priority_of(item.payload));
      rule.set("gate", gate_number(TupleSpace::gate_of(item.payload)));
      rule.set("values", fields_.values(item.key));
      rule.set("masks", fields_.values(item.tuple->mask.bytes()));
      if (!values_.empty()) {
        const auto* written = reinterpret_cast<const uint8_t*>(item.payload + TupleSpace::kValues);
        rule.set("valuesv", values_.values(written));
      }
      list.push_back(std::move(rule));
    }
    response.set("default_gate", gate_number(rules->fallback));
    response.set("rules", std::move(list));
    return {};
  }

  Status set_runtime_config(const Args& args, Args&) {
    Gate gate = 0;
    Status status =
        read_gate(args["default_gate"], "set_runtime_config: default_gate", default_drop_, gate);
    if (!status.ok()) return status;
    const Args::List& list = args["rules"].as_list();
    std::vector<Rule> all(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      status = read_rule(list[i], "set_runtime_config: rules[" + std::to_string(i) + "].", all[i]);
      if (!status.ok()) return status;
    }
    rules_.change([&](Rules& rules) {
      rules.table.clear();
      for (const Rule& rule : all) insert(rule, rules.table);
      rules.fallback = gate;
    });
    return {};
  }

 private:
  struct Rule {
    MatchKey key;
    MatchKey mask;
    MatchKey values;
    int64_t priority = 0;
    Gate gate = 0;
  };

  Status read_key(const Args& args, const std::string& where, MatchKey& key, MatchKey& mask) const {
    Status status = fields_.read(args["values"].as_list(), IntOrder::kBig, where + "values", key);
    if (status.ok()) {
      status = fields_.read(args["masks"].as_list(), IntOrder::kBig, where + "masks", mask);
    }
    if (!status.ok()) return status;
    for (size_t i = 0; i < fields_.size(); ++i) {
      const KeyField& field = fields_.field(i);
      for (uint32_t at = field.pos; at < field.pos + field.size; ++at) {
        if ((key.bytes()[at] & ~mask.bytes()[at]) == 0) continue;
        return Status::invalid(where + "values[" + std::to_string(i) +
                               "]: has bits outside masks[" + std::to_string(i) +
                               "] and could never match");
      }
    }
    return {};
  }

  Status read_rule(const Args& args, const std::string& where, Rule& rule) const {
    Status status = read_key(args, where, rule.key, rule.mask);
    if (status.ok()) status = read_gate(args["gate"], where + "gate", rule_drop_, rule.gate);
    if (!status.ok()) return status;
    rule.priority = args["priority"].as_int();
    return values_.read(args["valuesv"].as_list(), IntOrder::kLittle, where + "valuesv",
                        rule.values);
  }

  static void insert(const Rule& rule, TupleSpace& space) {
    space.add(rule.key, rule.mask, rule.priority, rule.gate, rule.values);
  }
};

const ModuleClass kClass = {
    "WildcardMatch",
    "wm",
    "multi-field classifier with a wildcard match table",
    "WildcardMatchArg",
    1,
    kMaxGates,
    {{"get_initial_arg", "EmptyArg", "WildcardMatchArg", true,
      command(&WildcardMatch::get_initial_arg)},
     {"get_runtime_config", "EmptyArg", "WildcardMatchConfig", true,
      command(&WildcardMatch::get_runtime_config)},
     {"set_runtime_config", "WildcardMatchConfig", "EmptyArg", true,
      command(&WildcardMatch::set_runtime_config)},
     {"add", "WildcardMatchCommandAddArg", "EmptyArg", true, command(&WildcardMatch::add)},
     {"delete", "WildcardMatchCommandDeleteArg", "EmptyArg", true, command(&WildcardMatch::remove)},
     {"clear", "EmptyArg", "EmptyArg", true, command(&WildcardMatch::clear)},
     {"set_default_gate", "WildcardMatchCommandSetDefaultGateArg", "EmptyArg", true,
      command(&WildcardMatch::set_default_gate)}},
    make_module<WildcardMatch>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
