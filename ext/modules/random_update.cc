// SPDX-License-Identifier: BSD-3-Clause
// RandomUpdate: writes uniform random numbers into packets.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: RandomUpdateArg
// Commands:
//   add    appends fields, all or none
//   clear  removes all fields
// Metadata: none.
// Drop reasons:
//   "packet too short"  a field reaches past the packet; nothing of it is changed
// Limits: at most 16 fields over the module's life until `clear`.
// Origin: the module of this name in BESS, where the top value of the full 4-byte range never comes
// up; the code is new.
#include <algorithm>

#include "host/headers.h"
#include "host/live_table.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

constexpr uint32_t kMaxFields = 16;
constexpr int64_t kMaxEnd = 2048;

struct Field {
  uint32_t offset = 0;
  uint32_t size = 0;
  uint32_t min = 0;
  uint64_t range = 0;  // max - min + 1, at most 2^32
};

class RandomUpdate final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    too_short_ = add_drop_reason("packet too short");
    Args none;
    return add(args, none);
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    auto plan = plan_.read(ctx);
    const uint32_t need_len = plan->need_len;
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = batch[i]->len() >= need_len ? 0 : drop_gate(too_short_);
    }
    Random random = ctx.random;
    for (uint32_t f = 0; f < plan->count; ++f) {
      const Field field = plan->fields[f];
      with_size(field.size, [&](auto size) {
        for (uint32_t i = 0; i < batch.size; ++i) {
          if (gates[i] != 0) continue;
          put(batch[i]->data() + field.offset, size, field.min + random.below(field.range));
        }
      });
    }
    ctx.random = random;
    plan.release();
    emit_by_gate(ctx, batch, gates);
  }

  Status add(const Args& args, Args&) {
    const Args::List& list = args["fields"].as_list();
    std::vector<Field> added(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string where = "'fields' item " + std::to_string(i);
      const int64_t offset = list[i]["offset"].as_int();
      const uint64_t size = list[i]["size"].as_uint();
      if (size != 1 && size != 2 && size != 4) {
        return Status::invalid(where + ": 'size' must be 1, 2 or 4 bytes");
      }
      if (offset < 0 || offset > kMaxEnd - static_cast<int64_t>(size)) {
        return Status::invalid(where + ": 'offset' must be within 0.." +
                               std::to_string(kMaxEnd - static_cast<int64_t>(size)));
      }
      const uint64_t top = (uint64_t{1} << (size * 8)) - 1;
      const uint64_t min = std::min(list[i]["min"].as_uint(), top);
      const uint64_t max = std::min(list[i]["max"].as_uint(), top);
      if (min > max) return Status::invalid(where + ": 'min' must not be greater than 'max'");
      added[i] = {static_cast<uint32_t>(offset), static_cast<uint32_t>(size),
                  static_cast<uint32_t>(min), max - min + 1};
    }
    return plan_.try_change([&added](Plan& plan) {
      if (added.size() > kMaxFields - plan.count) {
        return Status::invalid("'fields': at most " + std::to_string(kMaxFields) +
                               " fields in all; there are " + std::to_string(plan.count) +
                               " already");
      }
      for (const Field& field : added) plan.add(field);
      return Status{};
    });
  }

  Status clear(const Args&, Args&) {
    plan_.change([](Plan& plan) { plan = Plan(); });
    return {};
  }

 private:
  struct Plan {
    Field fields[kMaxFields];
    uint32_t count = 0;
    uint32_t need_len = 0;

    void add(const Field& field) {
      fields[count++] = field;
      need_len = std::max(need_len, field.offset + field.size);
    }
  };

  static void put(uint8_t* to, uint32_t size, uint32_t value) {
    switch (size) {
      case 1:
        *to = static_cast<uint8_t>(value);
        break;
      case 2:
        store_be16(to, static_cast<uint16_t>(value));
        break;
      default:
        store_be32(to, value);
    }
  }

  Live<Plan> plan_;
  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {
    "RandomUpdate",
    "rupdate",
    "updates packet data with random values",
    "RandomUpdateArg",
    1,
    1,
    {{"add", "RandomUpdateArg", "EmptyArg", true, command(&RandomUpdate::add)},
     {"clear", "EmptyArg", "EmptyArg", true, command(&RandomUpdate::clear)}},
    make_module<RandomUpdate>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
