// SPDX-License-Identifier: BSD-3-Clause
// MetadataTest: declares metadata attributes, to see where they are placed; it uses none of them.
//
// A packet leaves by the gate of the number it came in by, unchanged.
//
// Family: metadata
// Gates: in 8192, out 8192.
// Arguments: MetadataTestArg
// Commands: none.
// Metadata: as its arguments say.
// Drop reasons: none.
// Origin: the module of this name in BESS; the code is new.
#include "host/module.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

class MetadataTest final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    Status status = declare(args["read"].as_map(), "read", Access::kRead);
    if (status.ok()) status = declare(args["write"].as_map(), "write", Access::kWrite);
    if (status.ok()) status = declare(args["update"].as_map(), "update", Access::kUpdate);
    return status;
  }

  void process(Context& ctx, Batch& batch, Gate in_gate) override { emit(ctx, batch, in_gate); }

 private:
  Status declare(const Args::Map& sizes, const std::string& list, Access access) {
    for (const auto& entry : sizes) {
      const int64_t size = entry.second.as_int();
      if (entry.first.empty() || size < 1 || size > kMaxAttrBytes) {
        return Status::invalid("MetadataTest." + list + "['" + entry.first + "'] is " +
                               std::to_string(size) + "; a name and 1 to " +
                               std::to_string(kMaxAttrBytes) + " bytes are needed");
      }
      for (const Attribute& attribute : attributes()) {
        if (attribute.name != entry.first) continue;
        return Status::error(EEXIST, "MetadataTest." + list + ": attribute '" + entry.first +
                                         "' is declared already");
      }
      add_attr(entry.first, static_cast<uint32_t>(size), access);
    }
    return {};
  }
};

const ModuleClass kClass = {"MetadataTest",
                            "mt_test",
                            "declares metadata attributes, for tests",
                            "MetadataTestArg",
                            kMaxGates,
                            kMaxGates,
                            {},
                            make_module<MetadataTest>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
