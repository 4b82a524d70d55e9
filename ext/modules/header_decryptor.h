// SPDX-License-Identifier: BSD-3-Clause
// HeaderDecryptor: what PrefixMatchDecrypt does to the packets of a batch, in three stages:
//
//   prepare   finds the option (embark_wire.h) and copies its text
//   open      the texts of all packets of an epoch at once
//   restore   writes the original headers over the encrypted ones
#pragma once

#include <cstdint>

#include "crypto/replay_guard.h"
#include "host/batch.h"
#include "modules/embark_args.h"
#include "modules/embark_text.h"
#include "modules/embark_wire.h"
#include "modules/return_table.h"

namespace e2 {

// What a gateway decrypts by; replaced as a whole.
struct DecryptPlan {
  KeyRing keys;
  AddressPool pools[KeyRing::kEpochs];  // of the same addresses under each key
};

enum class DecryptResult : uint8_t {
  kDone,
  kNotEncrypted,
  kCut,
  kUnknownEpoch,
  kBadTag,
  kReplayed,
  kOutsidePool,
  kBadText,
  kBadPayload,
  kNotOpened,
};

class HeaderDecryptor {
 public:
  // `returns` says whose a NAT's inbound packets are; nullptr where nobody knows.
  HeaderDecryptor(const DecryptPlan& plan, const uint8_t* macs, const ReturnTable* returns,
                  uint64_t now_ns, ReplayGuard& guard)
      : plan_(plan),
        macs_(macs),
        returns_(returns),
        now_(ReturnTable::time_of(now_ns)),
        guard_(guard) {}

  // results[i] says how packet i fared; `seal_place` is that of the attribute, or kNoOffset.
  void decrypt(Batch& batch, int seal_place, DecryptResult* results);

 private:
  struct Item {
    uint8_t* ip;
    uint8_t* body;
    const uint8_t* head;  // the Destination Options header
    uint16_t body_len;
    uint16_t text_len;
    uint8_t epoch;
    uint8_t flags;
    uint8_t protocol;
  };

  DecryptResult prepare(Packet& packet, Item& item) const;
  void open(uint32_t count, DecryptResult* results);
  DecryptResult restore(Packet& packet, const Item& item, uint8_t* text, int seal_place);
  DecryptResult restore_seal(Packet& packet, const Item& item, const uint8_t* bytes,
                             int seal_place) const;
  void write_ipv4(const Item& item, const uint8_t* text, const Extras& extras,
                  uint32_t address_change, uint8_t traffic_class, uint8_t hop_limit,
                  uint8_t* ip) const;
  void write_ipv6(const Item& item, const uint8_t* text, const Extras& extras,
                  uint8_t traffic_class, uint8_t hop_limit, uint8_t* ip) const;

  const DecryptPlan& plan_;
  const uint8_t* macs_;  // destination first
  const ReturnTable* returns_;
  const uint16_t now_;
  ReplayGuard& guard_;
  Item items_[kMaxBatch];
  alignas(64) uint8_t room_[kMaxBatch][kTextRoom];  // texts in clear
  CcmBatch batch_;
};

}  // namespace e2
