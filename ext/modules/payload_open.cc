// SPDX-License-Identifier: BSD-3-Clause
// PayloadOpen: decrypts in place what PayloadSeal has sealed, behind a PrefixMatchDecrypt.
//
// Packets that have no seal pass unchanged. What isn't authentic is dropped, not a byte of it
// decrypted.
//
// Family: embark
// Gates: in 1, out 1.
// Arguments: PayloadOpenArg
// Commands:
//   update  replaces all keys while packets flow; on an error nothing changes
// Metadata: reads "embark_seal" (32 bytes) of PrefixMatchDecrypt.
// Drop reasons:
//   "unknown epoch"  no key for it
//   "bad tag"        the payload isn't what was sealed
// Method: AES-128-GCM.
// Origin: original to this project, after C. Lan's dissertation, section 4.3.1.
#include "host/live_table.h"
#include "host/module.h"
#include "modules/embark_args.h"
#include "modules/embark_wire.h"

namespace e2 {
namespace {

class PayloadOpen final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    unknown_epoch_ = drop_gate(add_drop_reason("unknown epoch"));
    bad_tag_ = drop_gate(add_drop_reason("bad tag"));
    seal_ = add_attr(kSealAttribute, kSealBytes, Access::kRead);
    return change_keys(args);
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch] = {};
    const int place = attr_offset(seal_);
    if (place != kNoOffset) {
      const auto keys = live_.read(ctx);
      for (uint32_t i = 0; i < batch.size; ++i) gates[i] = open(*batch[i], place, *keys);
    }
    emit_by_gate(ctx, batch, gates);
  }

  Status update(const Args& args, Args&) { return change_keys(args); }

 private:
  Gate open(Packet& packet, int place, const KeyRing& keys) const {
    Seal seal;
    std::memcpy(&seal, packet.metadata(place), sizeof seal);
    if (seal.present == 0) return 0;
    const SiteKeys* const key = keys.of[seal.epoch].get();
    if (key == nullptr) return unknown_epoch_;
    uint8_t* const frame = packet.data();
    // By the header's rules for what was malformed, all of it was sealed; the seal says so.
    const SealedPart part = find_payload(frame, packet.len());
    const uint32_t body = part.start - part.clear;
    const uint32_t clear = load_be16(seal.clear);
    if (clear > part.end - body) return bad_tag_;
    uint8_t* const text = frame + body + clear;
    return gcm_open(key->payload, seal.nonce, &seal.present, Seal::kAuthenticated, text, text,
                    part.end - body - clear, seal.tag)
               ? Gate{0}
               : bad_tag_;
  }

  Status change_keys(const Args& args) {
    KeyRing keys;
    Status status = read_key_ring(args["keys"], "PayloadOpen.keys", keys);
    if (status.ok()) live_.change([&](KeyRing& current) { current = keys; });
    return status;
  }

  Live<KeyRing> live_;
  size_t seal_ = 0;
  Gate unknown_epoch_ = 0;
  Gate bad_tag_ = 0;
};

const ModuleClass kClass = {
    "PayloadOpen",
    "payload_open",
    "decrypts sealed payloads in place",
    "PayloadOpenArg",
    1,
    1,
    {{"update", "PayloadOpenArg", "EmptyArg", true, command(&PayloadOpen::update)}},
    make_module<PayloadOpen>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
