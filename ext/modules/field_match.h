// SPDX-License-Identifier: BSD-3-Clause
// FieldMatch: what modules have in common that look packets up by the values of their fields and
// write other values into those that match (ExactMatch, WildcardMatch, Qos).
//
// Table is what finds rules: it has size() and clear(). A module makes it in init, with
// init_match(), after its drop gates, and has the commands `clear` and `set_default_gate` from
// here.
#pragma once

#include <string>

#include "host/live_table.h"
#include "modules/field_key.h"
#include "modules/gate_args.h"

namespace e2 {

template <typename Table>
class FieldMatch : public Module {
 public:
  std::string description() const override {
    return std::to_string(fields_.size()) + " fields, " +
           std::to_string(rules_.look()->table.size()) + " rules";
  }

  Status clear(const Args&, Args&) {
    rules_.change([](Rules& rules) { rules.table.clear(); });
    return {};
  }

  Status set_default_gate(const Args& args, Args&) {
    Gate gate = 0;
    Status status = read_gate(args["gate"], "set_default_gate: gate", default_drop_, gate);
    if (status.ok()) rules_.change([gate](Rules& rules) { rules.fallback = gate; });
    return status;
  }

 protected:
  struct Rules {
    Table table;
    Gate fallback = 0;
  };

  // Reads `fields`, `values` and `entries`, masked where there are masks; make_table() is called
  // once these are known, for each copy of the table.
  template <typename MakeTable>
  Status init_match(const Args& args, const std::string& name, const Args::List& field_masks,
                    const Args::List& value_masks, MakeTable make_table) {
    Status status = fields_.init(args["fields"].as_list(), field_masks, name + ".fields",
                                 [this](const std::string& attr, uint32_t size) {
                                   return add_attr(attr, size, Access::kRead);
                                 });
    if (!status.ok()) return status;
    status = values_.init(args["values"].as_list(), value_masks, name + ".values",
                          [this](const std::string& attr, uint32_t size) {
                            return add_attr(attr, size, Access::kWrite);
                          });
    if (!status.ok()) return status;
    entries_ = args["entries"].as_uint();
    if (entries_ > kMaxReserve) {
      return Status::invalid(name + ".entries: must be at most " + std::to_string(kMaxReserve));
    }
    rules_.change([&](Rules& rules) {
      rules.table = make_table();
      rules.fallback = default_drop_;
    });
    return {};
  }

  // Writes the values of each rule found, which follow the first `before` words of its payload.
  // Packets that are too short for them get the drop gate of that.
  void write_values(const Batch& batch, const uint64_t* const* payloads, uint32_t before,
                    Gate* gates) const {
    if (values_.empty()) return;
    for (uint32_t i = 0; i < batch.size; ++i) {
      if (payloads[i] == nullptr) continue;
      const auto* bytes = reinterpret_cast<const uint8_t*>(payloads[i] + before);
      if (!values_.store(*this, batch[i], bytes)) gates[i] = short_drop_;
    }
  }

  KeyLayout fields_;
  KeyLayout values_;
  Live<Rules> rules_;
  uint64_t entries_ = 0;
  Gate rule_drop_ = 0;
  Gate default_drop_ = 0;
  Gate short_drop_ = 0;

 private:
  static constexpr uint64_t kMaxReserve = 1u << 24;
};

}  // namespace e2
