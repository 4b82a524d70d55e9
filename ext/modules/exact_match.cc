// SPDX-License-Identifier: BSD-3-Clause
// ExactMatch: sends each packet to the gate of the rule whose field values it has.
//
// Fields are bytes of the packet or metadata, see field_key.h. Numbers (value_int) are big-endian
// in packets and in host order in attributes. Packets without a rule go to the default gate, which
// is 8192 (drop) at first; gate 8192 in a rule drops too.
//
// Family: matching
// Gates: in 1, out 8192.
// Arguments: ExactMatchArg
// Commands:
//   add                 adds a rule, or replaces it
//   delete              removes a rule; ENOENT where there is none
//   clear               removes all rules
//   set_default_gate    where packets without a rule go
//   get_initial_arg     the arguments
//   get_runtime_config  the default gate, and the rules sorted by gate, then by fields
//   set_runtime_config  replaces the default gate and all rules, or nothing
// Metadata: reads the attributes of `fields`, writes those of `values`.
// Drop reasons:
//   "rule"       gate 8192 in a rule
//   "no match"   gate 8192 as the default
//   "too short"  the packet ends before the values to write
// Method: one hash table (key_table.h), looked up a batch at a time. Commands change it while
// packets flow (live_table.h).
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>

#include "modules/field_match.h"
#include "modules/key_table.h"

namespace e2 {
namespace {

class ExactMatch final : public FieldMatch<KeyTable> {
 public:
  Status init(Host&, const Args& args) override {
    rule_drop_ = drop_gate(add_drop_reason("rule"));
    default_drop_ = drop_gate(add_drop_reason("no match"));
    short_drop_ = drop_gate(add_drop_reason("too short"));
    has_masks_ = !args["masks"].as_list().empty();
    has_value_masks_ = !args["masksv"].as_list().empty();
    return init_match(args, "ExactMatch", args["masks"].as_list(), args["masksv"].as_list(),
                      [this] {
                        KeyTable table(fields_.words(), 1 + values_.words());
                        table.reserve(entries_);
                        return table;
                      });
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
      gates[i] = hits[i] == nullptr ? fallback : static_cast<Gate>(hits[i][0]);
    }
    write_values(batch, hits, 1, gates);
    rules.release();
    emit_by_gate(ctx, batch, gates);
  }

  Status add(const Args& args, Args&) {
    Rule rule;
    Status status = read_rule(args, "add: ", rule);
    if (status.ok()) rules_.change([&](Rules& rules) { insert(rule, rules.table); });
    return status;
  }

  Status remove(const Args& args, Args&) {
    if (args["fields"].as_list().empty()) {
      return Status::invalid("delete: fields is empty; give the values of the rule");
    }
    MatchKey key;
    Status status =
        fields_.read(args["fields"].as_list(), IntOrder::kByPlace, "delete: fields", key);
    if (!status.ok()) return status;
    return rules_.try_change([&key](Rules& rules) {
      if (rules.table.erase(key.words)) return Status{};
      return Status::error(ENOENT, "delete: rule doesn't exist");
    });
  }

  Status get_initial_arg(const Args&, Args& response) {
    response.set("fields", fields_.fields());
    if (has_masks_) response.set("masks", fields_.masks());
    if (!values_.empty()) response.set("values", values_.fields());
    if (has_value_masks_) response.set("masksv", values_.masks());
    if (entries_ != 0) response.set("entries", entries_);
    return {};
  }

  Status get_runtime_config(const Args&, Args& response) {
    const auto rules = rules_.look();
    const KeyTable& table = rules->table;
    std::vector<uint32_t> order(table.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    const size_t bytes = fields_.words() * sizeof(uint64_t);
    std::sort(order.begin(), order.end(), [&table, bytes](uint32_t a, uint32_t b) {
      const uint64_t gate_a = gate_of(table, a);
      const uint64_t gate_b = gate_of(table, b);
      if (gate_a != gate_b) return gate_a < gate_b;
      return bytes != 0 && std::memcmp(table.row(a), table.row(b), bytes) < 0;
    });
    Args::List list;
    for (uint32_t i : order) {
      Args rule;
      rule.set("gate", gate_of(table, i));
      rule.set("fields", fields_.values(table.key_bytes(i)));
      if (!values_.empty()) {
        rule.set("values", values_.values(reinterpret_cast<const uint8_t*>(table.payload(i) + 1)));
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
      rules.table.reserve(all.size());
      for (const Rule& rule : all) insert(rule, rules.table);
      rules.fallback = gate;
    });
    return {};
  }

 private:
  struct Rule {
    Gate gate = 0;
    MatchKey key;
    MatchKey values;
  };

  static uint64_t gate_of(const KeyTable& table, size_t row) {
    return gate_number(static_cast<Gate>(table.payload(row)[0]));
  }

  Status read_rule(const Args& args, const std::string& where, Rule& rule) const {
    Status status = read_gate(args["gate"], where + "gate", rule_drop_, rule.gate);
    if (!status.ok()) return status;
    const Args::List& fields = args["fields"].as_list();
    if (fields.empty()) {
      return Status::invalid(where + "fields is empty; give one value per field of the module");
    }
    status = fields_.read(fields, IntOrder::kByPlace, where + "fields", rule.key);
    if (status.ok()) status = fields_.check_masks(rule.key, where + "fields");
    if (!status.ok()) return status;
    return values_.read(args["values"].as_list(), IntOrder::kByPlace, where + "values",
                        rule.values);
  }

  void insert(const Rule& rule, KeyTable& table) const {
    bool created = false;
    uint64_t* payload = table.insert(rule.key.words, created);
    payload[0] = rule.gate;
    std::memcpy(payload + 1, rule.values.words, values_.words() * sizeof(uint64_t));
  }

  bool has_masks_ = false;
  bool has_value_masks_ = false;
};

const ModuleClass kClass = {
    "ExactMatch",
    "em",
    "multi-field classifier with an exact match table",
    "ExactMatchArg",
    1,
    kMaxGates,
    {{"get_initial_arg", "EmptyArg", "ExactMatchArg", true, command(&ExactMatch::get_initial_arg)},
     {"get_runtime_config", "EmptyArg", "ExactMatchConfig", true,
      command(&ExactMatch::get_runtime_config)},
     {"set_runtime_config", "ExactMatchConfig", "EmptyArg", true,
      command(&ExactMatch::set_runtime_config)},
     {"add", "ExactMatchCommandAddArg", "EmptyArg", true, command(&ExactMatch::add)},
     {"delete", "ExactMatchCommandDeleteArg", "EmptyArg", true, command(&ExactMatch::remove)},
     {"clear", "EmptyArg", "EmptyArg", true, command(&ExactMatch::clear)},
     {"set_default_gate", "ExactMatchCommandSetDefaultGateArg", "EmptyArg", true,
      command(&ExactMatch::set_default_gate)}},
    make_module<ExactMatch>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
