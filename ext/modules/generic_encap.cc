// SPDX-License-Identifier: BSD-3-Clause
// GenericEncap: puts a header made of constants and metadata in front of packets.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: GenericEncapArg
// Commands: none.
// Metadata: reads each `attribute`.
// Drop reasons:
//   "no headroom"  the buffer has no room for the header in front of the packet
// Origin: the module of this name in BESS, which lets such packets pass without the header; the
// code is new.
#include <vector>

#include "host/module.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

constexpr size_t kMaxFields = 8;
constexpr uint32_t kMaxFieldBytes = 8;

struct FromAttr {
  size_t attr = 0;
  uint32_t position = 0;
  uint32_t size = 0;
};

// Up to 64 bytes without a call: moves of 32 bytes that overlap, or smaller ones.
inline void copy_header(uint8_t* to, const uint8_t* from, uint32_t bytes) {
  if (bytes > 32) {
    copy_small(to, from, 32);
    copy_small(to + bytes - 32, from + bytes - 32, 32);
  } else {
    copy_small(to, from, bytes);
  }
}

class GenericEncap final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    no_headroom_ = add_drop_reason("no headroom");
    const Args::List& list = args["fields"].as_list();
    if (list.size() > kMaxFields) {
      return Status::invalid("'fields' has " + std::to_string(list.size()) +
                             " fields; at most 8 are possible");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      Status status = add_field(list[i], "'fields' item " + std::to_string(i));
      if (!status.ok()) return status;
    }
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    const uint32_t bytes = bytes_;
    for (uint32_t i = 0; i < batch.size; ++i) {
      uint8_t* to = batch[i]->prepend(bytes);
      gates[i] = to != nullptr ? 0 : drop_gate(no_headroom_);
      if (to != nullptr) copy_header(to, constants_, bytes);
    }
    for (const FromAttr& field : from_attrs_) {
      const int place = attr_offset(field.attr);
      if (place == kNoOffset) continue;
      const uint32_t position = field.position;
      with_size(field.size, [&](auto size) {
        for (uint32_t i = 0; i < batch.size; ++i) {
          if (gates[i] == 0)
            copy_word(batch[i]->data() + position, batch[i]->metadata(place), size);
        }
      });
    }
    emit_by_gate(ctx, batch, gates);
  }

 private:
  Status add_field(const Args& args, const std::string& where) {
    const uint64_t size = args["size"].as_uint();
    if (size < 1 || size > kMaxFieldBytes) {
      return Status::invalid(where + ": 'size' must be within 1..8 bytes");
    }
    const auto bytes = static_cast<uint32_t>(size);
    if (args.has("attribute")) {
      const std::string& name = args["attribute"].as_string();
      if (name.empty()) return Status::invalid(where + ": 'attribute' must be a name");
      from_attrs_.push_back({add_attr(name, bytes, Access::kRead), bytes_, bytes});
    } else if (args.has("value")) {
      Status status = parse_value(args["value"], bytes, where, constants_ + bytes_);
      if (!status.ok()) return status;
    } else {
      return Status::invalid(where + ": must have either 'value' or 'attribute'");
    }
    bytes_ += bytes;
    return {};
  }

  uint8_t constants_[kMaxFields * kMaxFieldBytes] = {};  // zero where attributes go
  uint32_t bytes_ = 0;
  std::vector<FromAttr> from_attrs_;
  uint32_t no_headroom_ = 0;
};

const ModuleClass kClass = {"GenericEncap",
                            "generic_encap",
                            "encapsulates packets with constant values and metadata attributes",
                            "GenericEncapArg",
                            1,
                            1,
                            {},
                            make_module<GenericEncap>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
