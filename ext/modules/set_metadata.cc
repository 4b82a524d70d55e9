// SPDX-License-Identifier: BSD-3-Clause
// SetMetadata: sets metadata attributes to constants or to bytes of the packet.
//
// Bytes of the packet are copied, then shifted, then masked.
//
// Family: metadata
// Gates: in 1, out 1.
// Arguments: SetMetadataArg
// Commands:
//   get_initial_arg  the arguments as they were given
// Metadata: writes each `name`.
// Drop reasons:
//   "packet too short"  the bytes to copy are not all in the packet
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>
#include <vector>

#include "host/module.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

constexpr size_t kMaxAttrs = 16;
constexpr int64_t kMaxEnd = 2048;

struct Attr {
  uint32_t size = 0;
  bool from_packet = false;
  bool plain = false;  // copied without a shift or a mask
  uint32_t offset = 0;
  int32_t shift = 0;  // bytes, positive to the right
  uint8_t value[kMaxAttrBytes] = {};
  uint8_t mask[kMaxAttrBytes] = {};
};

// Bytes of `from` as they come out of shift and mask.
inline void shift_and_mask(uint8_t* to, const uint8_t* from, const Attr& attr) {
  const auto size = static_cast<int32_t>(attr.size);
  uint8_t out[kMaxAttrBytes] = {};
  const int32_t first = std::max(0, attr.shift);
  const int32_t last = std::min(size, size + attr.shift);
  for (int32_t i = first; i < last; ++i) out[i] = from[i - attr.shift] & attr.mask[i];
  copy_small(to, out, attr.size);
}

class SetMetadata final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    too_short_ = add_drop_reason("packet too short");
    const Args::List& list = args["attrs"].as_list();
    if (list.empty()) return Status::invalid("'attrs' must be specified: a list of attributes");
    if (list.size() > kMaxAttrs) {
      return Status::invalid("'attrs' has " + std::to_string(list.size()) +
                             " attributes; at most 16 are possible");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      Status status = add_one(list[i], "'attrs' item " + std::to_string(i));
      if (!status.ok()) return status;
    }
    initial_ = args;
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = batch[i]->len() >= need_len_ ? 0 : drop_gate(too_short_);
    }
    for (size_t a = 0; a < attrs_.size(); ++a) {
      const int place = attr_offset(a);
      if (place == kNoOffset) continue;
      const Attr& attr = attrs_[a];
      if (attr.from_packet) {
        copy_from_packets(batch, gates, attr, place);
      } else {
        with_size(attr.size, [&](auto size) {
          for (uint32_t i = 0; i < batch.size; ++i) {
            copy_small(batch[i]->metadata(place), attr.value, size);
          }
        });
      }
    }
    emit_by_gate(ctx, batch, gates);
  }

  Status get_initial_arg(const Args&, Args& response) {
    response = initial_;
    return {};
  }

 private:
  static void copy_from_packets(Batch& batch, const Gate* gates, const Attr& attr, int place) {
    if (!attr.plain) {
      for (uint32_t i = 0; i < batch.size; ++i) {
        if (gates[i] == 0) {
          shift_and_mask(batch[i]->metadata(place), batch[i]->data() + attr.offset, attr);
        }
      }
      return;
    }
    const uint32_t offset = attr.offset;
    with_size(attr.size, [&](auto size) {
      for (uint32_t i = 0; i < batch.size; ++i) {
        if (gates[i] == 0) copy_small(batch[i]->metadata(place), batch[i]->data() + offset, size);
      }
    });
  }

  Status add_one(const Args& args, const std::string& where) {
    const std::string& name = args["name"].as_string();
    const uint64_t size = args["size"].as_uint();
    const std::string& mask = args["mask"].as_string();
    const int64_t shift = args["rshift_bits"].as_int();
    const int64_t offset = args["offset"].as_int();
    if (name.empty()) return Status::invalid(where + ": 'name' is missing");
    if (size < 1 || size > kMaxAttrBytes) {
      return Status::invalid(where + " ('" + name + "'): 'size' must be within 1..32 bytes");
    }
    const auto bytes = static_cast<int64_t>(size);
    Attr attr;
    attr.size = static_cast<uint32_t>(size);
    attr.from_packet = !args.has("value_int") && !args.has("value_bin");
    const std::string place = where + " ('" + name + "')";
    if (!attr.from_packet) {
      if (offset < 0 && (!mask.empty() || shift != 0)) {
        return Status::invalid(place + ": 'mask' and 'rshift_bits' go with a copy from the packet");
      }
      Status status = parse_value(args, attr.size, place, attr.value);
      if (!status.ok()) return status;
    } else {
      if (offset < 0 || offset + bytes >= kMaxEnd) {
        return Status::invalid(place + ": 'offset' must be within 0.." +
                               std::to_string(kMaxEnd - bytes - 1));
      }
      if (shift % 8 != 0) return Status::invalid(place + ": 'rshift_bits' must be a multiple of 8");
      if (shift / 8 >= bytes || shift / 8 <= -bytes) {
        return Status::invalid(place + ": 'rshift_bits' must be between -" +
                               std::to_string(8 * bytes) + " and " + std::to_string(8 * bytes) +
                               ", without both");
      }
      if (!mask.empty() && mask.size() != size) {
        return Status::invalid(place + ": 'mask' has " + std::to_string(mask.size()) +
                               " bytes; 'size' says " + std::to_string(size));
      }
      attr.offset = static_cast<uint32_t>(offset);
      attr.shift = static_cast<int32_t>(shift / 8);
      std::memset(attr.mask, 0xff, sizeof attr.mask);
      std::memcpy(attr.mask, mask.data(), mask.size());
      attr.plain = shift == 0 && mask.find_first_not_of('\xff') == std::string::npos;
      need_len_ = std::max(need_len_, attr.offset + attr.size);
    }
    add_attr(name, attr.size, Access::kWrite);
    attrs_.push_back(attr);
    return {};
  }

  std::vector<Attr> attrs_;
  Args initial_;
  uint32_t need_len_ = 0;
  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {"SetMetadata",
                            "setattr",
                            "Set metadata attributes to packets",
                            "SetMetadataArg",
                            1,
                            1,
                            {{"get_initial_arg", "EmptyArg", "SetMetadataArg", true,
                              command(&SetMetadata::get_initial_arg)}},
                            make_module<SetMetadata>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
