// SPDX-License-Identifier: BSD-3-Clause
// Update: writes constants into packets.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: UpdateArg
// Commands:
//   add    appends fields, all or none
//   clear  removes all fields
// Metadata: none.
// Drop reasons:
//   "packet too short"  a field reaches past the packet; nothing of it is changed
// Limits: at most 16 fields over the module's life until `clear`.
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>

#include "host/live_table.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

constexpr uint32_t kMaxFields = 16;
constexpr int64_t kMaxEnd = 2048;

struct Field {
  int32_t offset = 0;
  uint32_t size = 0;
  uint8_t value[8] = {};
};

class Update final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    too_short_ = add_drop_reason("packet too short");
    Args none;
    return add(args, none);
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    auto plan = plan_.read(ctx);
    const uint32_t need_len = plan->need_len;
    const uint32_t need_headroom = plan->need_headroom;
    if (plan->count == 1) {
      const Field field = plan->fields[0];
      plan.release();
      with_size(field.size, [&](auto size) {
        emit_each(ctx, batch, [&, this](Packet& packet) {
          if (packet.len() < need_len || packet.headroom() < need_headroom) {
            return drop_gate(too_short_);
          }
          copy_word(packet.data() + field.offset, field.value, size);
          return Gate{0};
        });
      });
      return;
    }
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      const bool fits = batch[i]->len() >= need_len && batch[i]->headroom() >= need_headroom;
      gates[i] = fits ? 0 : drop_gate(too_short_);
    }
    for (uint32_t f = 0; f < plan->count; ++f) {
      const Field field = plan->fields[f];
      with_size(field.size, [&](auto size) {
        for (uint32_t i = 0; i < batch.size; ++i) {
          if (gates[i] == 0) copy_word(batch[i]->data() + field.offset, field.value, size);
        }
      });
    }
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
      const uint64_t value = list[i]["value"].as_uint();
      if (size < 1 || size > 8)
        return Status::invalid(where + ": 'size' must be within 1..8 bytes");
      if (offset < -static_cast<int64_t>(kHeadroomBytes) ||
          offset > kMaxEnd - static_cast<int64_t>(size)) {
        return Status::invalid(where + ": 'offset' must be within -128.." +
                               std::to_string(kMaxEnd - static_cast<int64_t>(size)));
      }
      if (!fits_bytes(value, size)) {
        return Status::invalid(where + ": 'value' " + std::to_string(value) + " does not fit " +
                               std::to_string(size) + " bytes");
      }
      added[i].offset = static_cast<int32_t>(offset);
      added[i].size = static_cast<uint32_t>(size);
      put_uint(added[i].value, added[i].size, value);
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
    uint32_t need_headroom = 0;

    void add(const Field& field) {
      fields[count++] = field;
      const int64_t end = static_cast<int64_t>(field.offset) + field.size;
      need_len = static_cast<uint32_t>(std::max<int64_t>(need_len, end));
      need_headroom = static_cast<uint32_t>(std::max<int64_t>(need_headroom, -field.offset));
    }
  };

  Live<Plan> plan_;
  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {"Update",
                            "update",
                            "updates packet data with specified values",
                            "UpdateArg",
                            1,
                            1,
                            {{"add", "UpdateArg", "EmptyArg", true, command(&Update::add)},
                             {"clear", "EmptyArg", "EmptyArg", true, command(&Update::clear)}},
                            make_module<Update>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
