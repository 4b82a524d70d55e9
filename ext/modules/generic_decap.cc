// SPDX-License-Identifier: BSD-3-Clause
// GenericDecap: takes bytes off the front of packets.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: GenericDecapArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "packet too short"  the packet has fewer bytes
// Origin: the module of this name in BESS, which lets such packets pass unchanged; the code is new.
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint64_t kMaxBytes = 1024;

class GenericDecap final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    too_short_ = add_drop_reason("packet too short");
    const uint64_t bytes = args["bytes"].as_uint();
    if (bytes > kMaxBytes) {
      return Status::invalid("'bytes' " + std::to_string(bytes) + " must be within 0..1024");
    }
    bytes_ = static_cast<uint32_t>(bytes);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const uint32_t bytes = bytes_;
    emit_each(ctx, batch, [=, this](Packet& packet) {
      return packet.adj(bytes) != nullptr ? Gate{0} : drop_gate(too_short_);
    });
  }

 private:
  uint32_t bytes_ = 0;
  uint32_t too_short_ = 0;
};

const ModuleClass kClass = {"GenericDecap",
                            "generic_decap",
                            "remove specified bytes from the beginning of packets",
                            "GenericDecapArg",
                            1,
                            1,
                            {},
                            make_module<GenericDecap>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
