// SPDX-License-Identifier: BSD-3-Clause
// PayloadSeal: encrypts the payload of packets in place, for PrefixMatchEncrypt to send on.
//
// The payload of TCP, UDP and ICMP is what follows their headers; of all other IP packets, of
// fragments but the first of TCP or UDP, and of malformed ones it is all that follows the IP
// header. Its length stays. Nonce and tag go into the attribute "embark_seal"; checksums do not fit
// the packet any more until PrefixMatchEncrypt has computed them. Packets without payload, those
// that aren't IP, and neighbour discovery and the like, which doesn't leave a link, pass unchanged.
//
// Family: embark
// Gates: in 1, out 1.
// Arguments: PayloadSealArg
// Commands:
//   update  replaces the key while packets flow; on an error nothing changes
// Metadata: writes "embark_seal" (32 bytes).
// Drop reasons: none.
// Method: AES-128-GCM.
// Origin: original to this project, after C. Lan's dissertation, section 4.3.1.
#include "crypto/nonces.h"
#include "host/live_table.h"
#include "host/module.h"
#include "modules/embark_args.h"
#include "modules/embark_wire.h"

namespace e2 {
namespace {

struct SealPlan {
  std::shared_ptr<const SiteKeys> keys;
  uint8_t epoch = 0;
};

class PayloadSeal final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    seal_ = add_attr(kSealAttribute, kSealBytes, Access::kWrite);
    nonces_ = std::make_unique<Nonces[]>(kMaxWorkers);
    return change_plan(args);
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    auto plan = live_.read(ctx);
    const int place = attr_offset(seal_);
    // Without a PrefixMatchEncrypt behind it, nobody could open what it seals.
    if (place != kNoOffset) {
      NonceRun nonces = nonces_[ctx.wid].take(batch.size);
      for (Packet* packet : batch) seal(*packet, place, *plan, nonces);
    }
    plan.release();
    emit(ctx, batch);
  }

  Status update(const Args& args, Args&) { return change_plan(args); }

 private:
  static void seal(Packet& packet, int place, const SealPlan& plan, NonceRun& nonces) {
    uint8_t* const frame = packet.data();
    uint8_t* const attribute = packet.metadata(place);
    const SealedPart part = find_payload(frame, packet.len());
    Seal seal = {};
    if (part.start < part.end) {
      seal.present = 1;
      seal.epoch = plan.epoch;
      store_be16(seal.clear, static_cast<uint16_t>(part.clear));
      nonces.next().write(seal.nonce);
      gcm_seal(plan.keys->payload, seal.nonce, &seal.present, Seal::kAuthenticated,
               frame + part.start, frame + part.start, part.end - part.start, seal.tag);
    }
    std::memcpy(attribute, &seal, sizeof seal);
  }

  Status change_plan(const Args& args) {
    SealPlan plan;
    Status status = read_site_key(args["key"], "PayloadSeal.key", plan.keys, plan.epoch);
    if (status.ok()) live_.change([&](SealPlan& current) { current = plan; });
    return status;
  }

  Live<SealPlan> live_;
  std::unique_ptr<Nonces[]> nonces_;  // by worker
  size_t seal_ = 0;
};

const ModuleClass kClass = {
    "PayloadSeal",
    "payload_seal",
    "encrypts payloads in place",
    "PayloadSealArg",
    1,
    1,
    {{"update", "PayloadSealArg", "EmptyArg", true, command(&PayloadSeal::update)}},
    make_module<PayloadSeal>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
