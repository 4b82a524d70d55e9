// SPDX-License-Identifier: BSD-3-Clause
// MyModule: tells long packets from short ones.
//
// Packets of at least `bytes` bytes leave by gate 1, shorter ones by gate 0.
//
// Family: matching
// Gates: in 1, out 2.
// Arguments: MyModuleArg
// Commands:
//   set  changes `bytes`
//   get  what `bytes` is now
// Metadata: none.
// Drop reasons:
//   "empty"  a packet without a byte
// Origin: written for here.
#include <atomic>

#include "host/module.h"

namespace e2 {
namespace {

constexpr uint64_t kMaxBytes = 65535;

class MyModule final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    empty_ = drop_gate(add_drop_reason("empty"));
    return read(args, "MyModule.bytes");
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const uint32_t bytes = bytes_.load(std::memory_order_relaxed);
    emit_each(ctx, batch, [this, bytes](Packet& packet) -> Gate {
      if (packet.len() == 0) return empty_;
      return packet.len() >= bytes ? 1 : 0;
    });
  }

  std::string description() const override { return std::to_string(bytes_) + " bytes"; }

  Status set(const Args& args, Args&) { return read(args, "set: bytes"); }

  Status get(const Args&, Args& response) {
    response.set("bytes", uint64_t{bytes_});
    return {};
  }

 private:
  Status read(const Args& args, const std::string& where) {
    const uint64_t bytes = args["bytes"].as_uint();
    if (bytes == 0 || bytes > kMaxBytes) {
      return Status::invalid(where + " is " + std::to_string(bytes) + "; must be 1 to " +
                             std::to_string(kMaxBytes));
    }
    bytes_ = static_cast<uint32_t>(bytes);
    return {};
  }

  std::atomic<uint32_t> bytes_{0};  // a command changes it while workers read it
  Gate empty_ = 0;
};

const ModuleClass kClass = {"MyModule",
                            "my_module",
                            "tells long packets from short ones",
                            "MyModuleArg",
                            1,
                            2,
                            {{"set", "MyModuleArg", "EmptyArg", true, command(&MyModule::set)},
                             {"get", "EmptyArg", "MyModuleArg", true, command(&MyModule::get)}},
                            make_module<MyModule>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
