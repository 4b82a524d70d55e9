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
// Method: one hash table (key_table.h), looked up a batch at a time.
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>
#include <atomic>

#include "modules/field_key.h"
#include "modules/gate_args.h"
#include "modules/key_table.h"

namespace e2 {
namespace {

constexpr uint64_t kMaxReserve = 1u << 24;

class ExactMatch final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    rule_drop_ = drop_gate(add_drop_reason("rule"));
    default_drop_ = drop_gate(add_drop_reason("no match"));
    short_drop_ = drop_gate(add_drop_reason("too short"));
    default_gate_ = default_drop_;
    has_masks_ = !args["masks"].as_list().empty();
    has_value_masks_ = !args["masksv"].as_list().empty();
    Status status =
        fields_.init(args["fields"].as_list(), args["masks"].as_list(), "ExactMatch.fields",
                     [this](const std::string& name, uint32_t size) {
                       return add_attr(name, size, Access::kRead);
                     });
    if (!status.ok()) return status;
    status = values_.init(args["values"].as_list(), args["masksv"].as_list(), "ExactMatch.values",
                          [this](const std::string& name, uint32_t size) {
                            return add_attr(name, size, Access::kWrite);
                          });
    if (!status.ok()) return status;
    entries_ = args["entries"].as_uint();
    if (entries_ > kMaxReserve) {
      return Status::invalid("ExactMatch.entries: must be at most " + std::to_string(kMaxReserve));
    }
    table_ = make_table();
    table_.reserve(entries_);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    KeyBatch keys;
    const uint64_t* hits[kMaxBatch];
    Gate gates[kMaxBatch];
    const Gate fallback = default_gate_.load(std::memory_order_relaxed);
    fields_.load(*this, batch, keys);
    table_.find_batch(keys, batch.size, hits);
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = hits[i] == nullptr ? fallback : static_cast<Gate>(hits[i][0]);
    }
    if (!values_.empty()) {
      for (uint32_t i = 0; i < batch.size; ++i) {
        if (hits[i] == nullptr) continue;
        const auto* bytes = reinterpret_cast<const uint8_t*>(hits[i] + 1);
        if (!values_.store(*this, batch[i], bytes)) gates[i] = short_drop_;
      }
    }
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override {
    return std::to_string(fields_.size()) + " fields, " + std::to_string(table_.size()) + " rules";
  }

  Status add(const Args& args, Args&) { return add_rule(args, "add: ", table_); }

  Status remove(const Args& args, Args&) {
    if (args["fields"].as_list().empty()) {
      return Status::invalid("delete: fields is empty; give the values of the rule");
    }
    MatchKey key;
    Status status =
        fields_.read(args["fields"].as_list(), IntOrder::kByPlace, "delete: fields", key);
    if (!status.ok()) return status;
    if (!table_.erase(key.words)) return Status::error(ENOENT, "delete: rule doesn't exist");
    return {};
  }

  Status clear(const Args&, Args&) {
    table_.clear();
    return {};
  }

  Status set_default_gate(const Args& args, Args&) {
    Gate gate = 0;
    Status status = read_gate(args["gate"], "set_default_gate: gate", default_drop_, gate);
    if (status.ok()) default_gate_.store(gate, std::memory_order_relaxed);
    return status;
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
    std::vector<uint32_t> order(table_.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    const size_t bytes = fields_.words() * sizeof(uint64_t);
    std::sort(order.begin(), order.end(), [this, bytes](uint32_t a, uint32_t b) {
      const uint64_t gate_a = gate_of(a);
      const uint64_t gate_b = gate_of(b);
      if (gate_a != gate_b) return gate_a < gate_b;
      return bytes != 0 && std::memcmp(table_.row(a), table_.row(b), bytes) < 0;
    });
    Args::List rules;
    for (uint32_t i : order) {
      Args rule;
      rule.set("gate", gate_of(i));
      rule.set("fields", fields_.values(table_.key_bytes(i)));
      if (!values_.empty()) {
        rule.set("values", values_.values(reinterpret_cast<const uint8_t*>(table_.payload(i) + 1)));
      }
      rules.push_back(std::move(rule));
    }
    response.set("default_gate", gate_number(default_gate_));
    response.set("rules", std::move(rules));
    return {};
  }

  Status set_runtime_config(const Args& args, Args&) {
    Gate gate = 0;
    Status status =
        read_gate(args["default_gate"], "set_runtime_config: default_gate", default_drop_, gate);
    if (!status.ok()) return status;
    KeyTable table = make_table();
    const Args::List& rules = args["rules"].as_list();
    table.reserve(rules.size());
    for (size_t i = 0; i < rules.size(); ++i) {
      status = add_rule(rules[i], "set_runtime_config: rules[" + std::to_string(i) + "].", table);
      if (!status.ok()) return status;
    }
    table_ = std::move(table);
    default_gate_ = gate;
    return {};
  }

 private:
  // A row's payload is the gate and then the values to write.
  KeyTable make_table() const { return KeyTable(fields_.words(), 1 + values_.words()); }
  uint64_t gate_of(size_t row) const {
    return gate_number(static_cast<Gate>(table_.payload(row)[0]));
  }

  Status add_rule(const Args& args, const std::string& where, KeyTable& table) const {
    Gate gate = 0;
    MatchKey key;
    MatchKey values;
    Status status = read_gate(args["gate"], where + "gate", rule_drop_, gate);
    if (!status.ok()) return status;
    const Args::List& fields = args["fields"].as_list();
    if (fields.empty()) {
      return Status::invalid(where + "fields is empty; give one value per field of the module");
    }
    status = fields_.read(fields, IntOrder::kByPlace, where + "fields", key);
    if (status.ok()) status = fields_.check_masks(key, where + "fields");
    if (status.ok()) {
      status = values_.read(args["values"].as_list(), IntOrder::kByPlace, where + "values", values);
    }
    if (!status.ok()) return status;
    bool created = false;
    uint64_t* payload = table.insert(key.words, created);
    payload[0] = gate;
    std::memcpy(payload + 1, values.words, values_.words() * sizeof(uint64_t));
    return {};
  }

  KeyLayout fields_;
  KeyLayout values_;
  KeyTable table_;
  bool has_masks_ = false;
  bool has_value_masks_ = false;
  uint64_t entries_ = 0;
  Gate rule_drop_ = 0;
  Gate default_drop_ = 0;
  Gate short_drop_ = 0;
  std::atomic<Gate> default_gate_{0};
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
     {"set_runtime_config", "ExactMatchConfig", "EmptyArg", false,
      command(&ExactMatch::set_runtime_config)},
     {"add", "ExactMatchCommandAddArg", "EmptyArg", false, command(&ExactMatch::add)},
     {"delete", "ExactMatchCommandDeleteArg", "EmptyArg", false, command(&ExactMatch::remove)},
     {"clear", "EmptyArg", "EmptyArg", false, command(&ExactMatch::clear)},
     {"set_default_gate", "ExactMatchCommandSetDefaultGateArg", "EmptyArg", true,
      command(&ExactMatch::set_default_gate)}},
    make_module<ExactMatch>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
