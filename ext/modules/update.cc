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

#include "host/module.h"
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
    const uint32_t need_len = need_len_;
    const uint32_t need_headroom = need_headroom_;
    if (count_ == 1) {
      const Field field = fields_[0];
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
    for (uint32_t f = 0; f < count_; ++f) {
      const Field field = fields_[f];
      with_size(field.size, [&](auto size) {
        for (uint32_t i = 0; i < batch.size; ++i) {
          if (gates[i] == 0) copy_word(batch[i]->data() + field.offset, field.value, size);
        }
      });
    }
    emit_by_gate(ctx, batch, gates);
  }

  Status add(const Args& args, Args&) {
    const Args::List& list = args["fields"].as_list();
    if (list.size() > kMaxFields - count_) {
      return Status::invalid("'fields': at most " + std::to_string(kMaxFields) +
                             " fields in all; there are " + std::to_string(count_) + " already");
    }
    uint32_t count = count_;
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
      Field& field = fields_[count++];
      field.offset = static_cast<int32_t>(offset);
      field.size = static_cast<uint32_t>(size);
      put_uint(field.value, field.size, value);
    }
    count_ = count;
    measure();
    return {};
  }

  Status clear(const Args&, Args&) {
    count_ = 0;
    measure();
    return {};
  }

 private:
  void measure() {
    int64_t len = 0;
    int64_t headroom = 0;
    for (uint32_t i = 0; i < count_; ++i) {
      len = std::max<int64_t>(len, static_cast<int64_t>(fields_[i].offset) + fields_[i].size);
      headroom = std::max<int64_t>(headroom, -static_cast<int64_t>(fields_[i].offset));
    }
    need_len_ = static_cast<uint32_t>(len);
    need_headroom_ = static_cast<uint32_t>(headroom);
  }

  Field fields_[kMaxFields];
  uint32_t count_ = 0;
  uint32_t need_len_ = 0;
  uint32_t need_headroom_ = 0;
  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {"Update",
                            "update",
                            "updates packet data with specified values",
                            "UpdateArg",
                            1,
                            1,
                            {{"add", "UpdateArg", "EmptyArg", false, command(&Update::add)},
                             {"clear", "EmptyArg", "EmptyArg", false, command(&Update::clear)}},
                            make_module<Update>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
