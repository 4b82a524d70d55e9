// SPDX-License-Identifier: BSD-3-Clause
// Qos: meters packets by the values of their fields, and writes other values into them.
//
// Fields are bytes of the packet or metadata, see field_key.h; numbers (value_int) are in host
// order everywhere. A rule with gate 0 has a meter of two rates and no colours to begin with (RFC
// 2698): what is within the committed rate leaves by gate 1 (green), what is within the peak rate
// by gate 2 (yellow), all else by gate 3 (red). A rule with gate 4 or more sends its packets there
// without a meter. Both write the rule's values. A packet counts with its length less `deduct_len`.
// Packets without a rule go to the default gate, which is 8192 (drop) at first; gate 8192 in a rule
// drops too.
//
// Family: matching
// Gates: in 1, out 8192.
// Arguments: QosArg
// Commands:
//   add               adds a rule with a full meter, or replaces it
//   delete            removes a rule; ENOENT where there is none
//   clear             removes all rules
//   set_default_gate  where packets without a rule go
// Metadata: reads the attributes of `fields`, writes those of `values`.
// Drop reasons:
//   "rule"       gate 8192 in a rule
//   "no match"   gate 8192 as the default
//   "too short"  the packet ends before the values to write
// Method: one hash table (key_table.h), looked up a batch at a time; its commands change it while
// packets flow (live_table.h). Workers share the meters without locks (meter.h).
// Origin: the module of this name in the maintained BESS; the code is new.
#include <limits>
#include <map>
#include <memory>
#include <mutex>

#include "host/headers.h"
#include "modules/field_match.h"
#include "modules/key_table.h"
#include "modules/meter.h"

namespace e2 {
namespace {

constexpr Gate kMeterGate = 0;
constexpr Gate kGreenGate = 1;
constexpr Gate kRedGate = 3;

class Qos final : public FieldMatch<KeyTable> {
 public:
  Status init(Host&, const Args& args) override {
    rule_drop_ = drop_gate(add_drop_reason("rule"));
    default_drop_ = drop_gate(add_drop_reason("no match"));
    short_drop_ = drop_gate(add_drop_reason("too short"));
    return init_match(args, "Qos", {}, {}, [this] {
      KeyTable table(fields_.words(), kPayloadWords + values_.words());
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
      if (hits[i] == nullptr) {
        gates[i] = fallback;
        continue;
      }
      gates[i] = static_cast<Gate>(hits[i][0]);
      if (gates[i] == kMeterGate) {
        // NOLINTNEXTLINE(performance-no-int-to-ptr): the rows of a table are words
        auto* meter = reinterpret_cast<Metered*>(hits[i][1]);
        gates[i] = meter->gate_of(ctx.now_ns, batch[i]->len());
      }
    }
    write_values(batch, hits, kPayloadWords, gates);
    rules.release();
    emit_by_gate(ctx, batch, gates);
  }

  Status add(const Args& args, Args&) {
    Gate gate = 0;
    MatchKey key;
    MatchKey values;
    Status status = read_gate(args["gate"], "add: gate", rule_drop_, gate);
    if (status.ok() && gate >= kGreenGate && gate <= kRedGate) {
      status = Status::invalid("add: gate is " + std::to_string(gate) +
                               ", where packets of one colour go; must be 0 for a meter, 4 or more "
                               "without one, or 8192 to drop");
    }
    if (status.ok()) status = read_key(args, "add: ", key);
    if (status.ok()) {
      status = values_.read(args["values"].as_list(), IntOrder::kLittle, "add: values", values);
    }
    std::unique_ptr<Metered> meter;
    if (status.ok() && gate == kMeterGate) status = make_meter(args, meter);
    if (!status.ok()) return status;
    // Workers may use the meter that was there until both tables have the new one.
    const std::lock_guard<std::mutex> lock(meters_mutex_);
    rules_.change([&](Rules& rules) {
      bool created = false;
      uint64_t* payload = rules.table.insert(key.words, created);
      payload[0] = gate;
      payload[1] = reinterpret_cast<uint64_t>(meter.get());
      std::memcpy(payload + kPayloadWords, values.words, values_.words() * sizeof(uint64_t));
    });
    meters_[name_of(key)] = std::move(meter);
    return {};
  }

  Status remove(const Args& args, Args&) {
    MatchKey key;
    Status status = read_key(args, "delete: ", key);
    if (!status.ok()) return status;
    const std::lock_guard<std::mutex> lock(meters_mutex_);
    status = rules_.try_change([&key](Rules& rules) {
      if (rules.table.erase(key.words)) return Status{};
      return Status::error(ENOENT, "delete: rule doesn't exist");
    });
    if (status.ok()) meters_.erase(name_of(key));
    return status;
  }

  Status clear_all(const Args& args, Args& response) {
    const std::lock_guard<std::mutex> lock(meters_mutex_);
    Status status = clear(args, response);
    meters_.clear();
    return status;
  }

 private:
  static constexpr uint32_t kPayloadWords = 2;  // the gate and the meter, before the values

  struct Metered {
    Metered(const TwoRateMeter::Rates& rates, int64_t deduct)
        : meter(rates, clock_ns()), deduct_len(deduct) {}
    Gate gate_of(uint64_t now_ns, uint32_t len) {
      int64_t bytes = int64_t{len} - deduct_len;
      bytes = std::min<int64_t>(std::max<int64_t>(bytes, 0), std::numeric_limits<uint32_t>::max());
      const Colour colour = meter.mark(now_ns, static_cast<uint32_t>(bytes));
      return static_cast<Gate>(kGreenGate + static_cast<Gate>(colour));
    }
    TwoRateMeter meter;
    int64_t deduct_len;
  };

  Status read_key(const Args& args, const std::string& where, MatchKey& key) const {
    const Args::List& fields = args["fields"].as_list();
    if (fields.size() != fields_.size()) {
      return Status::invalid(where + "fields has " + std::to_string(fields.size()) +
                             " values; must have one per field of the module, " +
                             std::to_string(fields_.size()));
    }
    return fields_.read(fields, IntOrder::kLittle, where + "fields", key);
  }

  static Status make_meter(const Args& args, std::unique_ptr<Metered>& meter) {
    const TwoRateMeter::Rates rates{args["cir"].as_uint(), args["pir"].as_uint(),
                                    args["cbs"].as_uint(), args["pbs"].as_uint()};
    for (const auto& [name, value, most] :
         {std::tuple{"cir", rates.committed, kMaxMeterRate},
          std::tuple{"pir", rates.peak, kMaxMeterRate},
          std::tuple{"cbs", rates.committed_burst, kMaxMeterBurst},
          std::tuple{"pbs", rates.peak_burst, kMaxMeterBurst}}) {
      if (value < 1 || value > most) {
        return Status::invalid("add: " + std::string(name) + " is " + std::to_string(value) +
                               "; a meter (gate 0) needs 1 to " + std::to_string(most));
      }
    }
    if (rates.peak < rates.committed) {
      return Status::invalid("add: pir is " + std::to_string(rates.peak) +
                             "; must be at least cir, " + std::to_string(rates.committed));
    }
    const int64_t deduct = args.has("deduct_len") ? args["deduct_len"].as_int() : kEthernetBytes;
    if (deduct < -kMaxDeductBytes || deduct > kMaxDeductBytes) {
      return Status::invalid("add: deduct_len is " + std::to_string(deduct) + "; must be within " +
                             std::to_string(-kMaxDeductBytes) + ".." +
                             std::to_string(kMaxDeductBytes));
    }
    meter = std::make_unique<Metered>(rates, deduct);
    return {};
  }

  std::string name_of(const MatchKey& key) const {
    return {reinterpret_cast<const char*>(key.words), fields_.words() * sizeof(uint64_t)};
  }

  static constexpr int64_t kMaxDeductBytes = 65536;

  std::mutex meters_mutex_;
  std::map<std::string, std::unique_ptr<Metered>> meters_;  // by key; nullptr without a meter
};

const ModuleClass kClass = {
    "Qos",
    "qos",
    "multi-field classifier with a meter per rule",
    "QosArg",
    1,
    kMaxGates,
    {{"add", "QosCommandAddArg", "EmptyArg", true, command(&Qos::add)},
     {"delete", "QosCommandDeleteArg", "EmptyArg", true, command(&Qos::remove)},
     {"clear", "EmptyArg", "EmptyArg", true, command(&Qos::clear_all)},
     {"set_default_gate", "QosCommandSetDefaultGateArg", "EmptyArg", true,
      command(&Qos::set_default_gate)}},
    make_module<Qos>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
