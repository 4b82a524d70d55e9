// SPDX-License-Identifier: BSD-3-Clause
// PrefixMatchDecrypt: restores the headers that PrefixMatchEncrypt has encrypted.
//
// The original fields come from the packet's option, once it is found authentic. What a provider
// may have changed is taken from the packet: traffic class and hop limit; an address of `pool`,
// with its port where a NAT writes it. Checksums come back as they were, wrong ones too, and follow
// such changes. MAC addresses are the ones given here; Ethernet padding comes back as zeros.
//
// With `return_table`, what a provider's NAT sends back to the encrypted source of an outbound flow
// gets the address and port of that source, which PrefixMatchEncrypt has put there.
//
// What PrefixMatchEncrypt had to seal is opened here; what PayloadSeal has sealed, by a PayloadOpen
// behind this module.
//
// Family: embark
// Gates: in 1, out 1.
// Arguments: PrefixMatchDecryptArg
// Commands:
//   update  replaces keys and pool as one, while packets flow; on an error nothing changes. Which
//           packets have been seen is not forgotten.
// Metadata: writes "embark_seal" (32 bytes) for PayloadOpen, with `sealed_payload`.
// Drop reasons:
//   "not encrypted"    no option of PrefixMatchEncrypt
//   "cut"              lengths in the packet contradict each other or the frame's
//   "unknown epoch"    no key for it
//   "bad tag"          the option isn't what a gateway with this key wrote
//   "replayed"         it was here before, or came more than 4096 packets of its sender too late
//   "outside pool"     the provider wrote an address that isn't in `pool`, or a port alone; or, for
//                      a packet to a NAT of `pool`, a source that isn't in the table of returns
//   "bad text"         authentic, but written by a later version of this module
//   "bad payload tag"  what PrefixMatchEncrypt had to seal isn't what it was
//   "payload sealed"   by a PayloadSeal, and `sealed_payload` says that no PayloadOpen is there
// Limits: a packet counts as seen on the worker that has seen it; copies must come there, too, as
// they do where flows are kept together.
// Method: 32 packets go through the cipher side by side.
// Origin: original to this project, after C. Lan's dissertation, section 4.3.1.
#include "host/live_table.h"
#include "host/module.h"
#include "modules/header_decryptor.h"

namespace e2 {
namespace {

using SharedPlan = std::shared_ptr<const DecryptPlan>;

Status read_plan(const Args& args, SharedPlan& result) {
  const std::string where = "PrefixMatchDecrypt";
  auto plan = std::make_shared<DecryptPlan>();
  Status status = read_key_ring(args["keys"], where + ".keys", plan->keys);
  for (size_t epoch = 0; status.ok() && epoch < KeyRing::kEpochs; ++epoch) {
    if (plan->keys.of[epoch] == nullptr) continue;
    plan->pools[epoch] = AddressPool(plan->keys.of[epoch]->pool);
    status = read_pool(args["pool"], where + ".pool", plan->pools[epoch]);
  }
  if (status.ok()) result = std::move(plan);
  return status;
}

class PrefixMatchDecrypt final : public Module {
 public:
  Status init(Host& host, const Args& args) override {
    // In the order of DecryptResult.
    first_failure_ = drop_gate(add_drop_reason("not encrypted"));
    add_drop_reason("cut");
    add_drop_reason("unknown epoch");
    add_drop_reason("bad tag");
    add_drop_reason("replayed");
    add_drop_reason("outside pool");
    add_drop_reason("bad text");
    add_drop_reason("bad payload tag");
    add_drop_reason("payload sealed");
    sealed_ = args["sealed_payload"].as_bool();
    if (sealed_) seal_ = add_attr(kSealAttribute, kSealBytes, Access::kWrite);
    guards_ = std::make_unique<ReplayGuard[]>(kMaxWorkers);
    const std::string& returns = args["return_table"].as_string();
    if (!returns.empty()) returns_ = SharedReturns::of(host, returns);
    Status status = read_macs(args, "PrefixMatchDecrypt", macs_);
    if (status.ok()) status = change_plan(args);
    return status;
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    decrypt(ctx, batch, gates);
    emit_by_gate(ctx, batch, gates);
  }

  Status update(const Args& args, Args&) { return change_plan(args); }

 private:
  // Not inline: the texts needn't be on the stack while others have the packets.
  [[gnu::noinline]] void decrypt(Context& ctx, Batch& batch, Gate* gates) {
    const auto plan = live_.read(ctx);
    const ReturnTable* const returns = returns_ == nullptr ? nullptr : returns_->get();
    HeaderDecryptor decryptor(**plan, macs_, returns, ctx.now_ns, guards_[ctx.wid]);
    DecryptResult results[kMaxBatch];
    decryptor.decrypt(batch, sealed_ ? attr_offset(seal_) : kNoOffset, results);
    gates_of_results(results, batch.size, first_failure_, gates);
  }

  Status change_plan(const Args& args) {
    SharedPlan plan;
    Status status = read_plan(args, plan);
    if (status.ok()) live_.change([&](SharedPlan& current) { current = plan; });
    return status;
  }

  Live<SharedPlan> live_;
  uint8_t macs_[12] = {};
  std::unique_ptr<ReplayGuard[]> guards_;  // by worker
  std::shared_ptr<SharedReturns> returns_;
  bool sealed_ = false;
  size_t seal_ = 0;
  Gate first_failure_ = 0;
};

const ModuleClass kClass = {"PrefixMatchDecrypt",
                            "prefix_match_decrypt",
                            "restores encrypted headers",
                            "PrefixMatchDecryptArg",
                            1,
                            1,
                            {{"update", "PrefixMatchDecryptCommandUpdateArg", "EmptyArg", true,
                              command(&PrefixMatchDecrypt::update)}},
                            make_module<PrefixMatchDecrypt>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
