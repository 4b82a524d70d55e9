// SPDX-License-Identifier: BSD-3-Clause
// Split: sends each packet to the gate whose number the packet carries.
//
// Bytes beyond the end of the packet, and an attribute that no module writes, read as 0.
//
// Family: matching
// Gates: in 1, out 8192.
// Arguments: SplitArg
// Commands: none.
// Metadata: reads `attribute`.
// Drop reasons:
//   "no such gate"  the number is 8192 or more
// Origin: the module of this name in BESS; the code is new.
#include "modules/field_key.h"

namespace e2 {
namespace {

class Split final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    bad_gate_ = drop_gate(add_drop_reason("no such gate"));
    const uint64_t size = args["size"].as_uint();
    if (size < 1 || size > kMaxFieldBytes) {
      return Status::invalid("Split.size: is " + std::to_string(size) + "; must be 1 to 8");
    }
    shift_ = static_cast<uint32_t>(64 - 8 * size);
    Args field;
    field.set("num_bytes", size);
    if (args.has("attribute")) {
      field.set("attr_name", args["attribute"].as_string());
    } else {
      field.set("offset", args["offset"].as_uint());
    }
    return field_.init({field}, {}, "Split", [this](const std::string& name, uint32_t bytes) {
      return add_attr(name, bytes, Access::kRead);
    });
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    KeyBatch keys;
    Gate gates[kMaxBatch];
    const uint32_t shift = shift_;
    field_.load(*this, batch, keys);
    for (uint32_t i = 0; i < batch.size; ++i) {
      const uint64_t number = __builtin_bswap64(keys.words[0][i]) >> shift;
      gates[i] = number < kMaxGates ? static_cast<Gate>(number) : bad_gate_;
    }
    emit_by_gate(ctx, batch, gates);
  }

 private:
  KeyLayout field_;
  uint32_t shift_ = 0;
  Gate bad_gate_ = 0;
};

const ModuleClass kClass = {"Split",
                            "split",
                            "split packets depending on packet data or metadata attributes",
                            "SplitArg",
                            1,
                            kMaxGates,
                            {},
                            make_module<Split>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
