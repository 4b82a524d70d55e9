// SPDX-License-Identifier: BSD-3-Clause
// HeaderEncryptor: what PrefixMatchEncrypt does to the packets of a batch, in three stages:
//
//   prepare   parses a packet, writes its text (embark_wire.h), sums up its body
//   encrypt   all packets of a family at once: flow seeds, the four fields, texts
//   write     puts the new headers over the old ones
//
// The stages meet in groups, one for IPv4 and one for IPv6, so that 32 packets go through the AES
// unit and the interval maps side by side.
#pragma once

#include <cstdint>
#include <memory>

#include "crypto/address_pool.h"
#include "crypto/ccm.h"
#include "crypto/nonces.h"
#include "crypto/prefix_match.h"
#include "crypto/site_keys.h"
#include "host/batch.h"
#include "modules/embark_wire.h"
#include "modules/return_table.h"

namespace e2 {

// What a gateway encrypts by; replaced as a whole.
struct EncryptPlan {
  std::shared_ptr<const SiteKeys> keys;
  uint8_t epoch = 0;
  std::unique_ptr<const PrefixMap> maps[kPrefixFields];
  AddressPool pool;
};

struct EncryptFrame {
  uint8_t bound = 0;      // kFlagBound where seals are of their header only
  uint8_t macs[12] = {};  // destination first
  uint32_t mtu = 0;       // bytes of an IPv6 packet
};

// Which sources of outbound flows are written down, for what a NAT sends back to them.
struct EncryptReturns {
  struct Prefix {
    uint8_t bytes[16];
    uint8_t mask[16];
    bool ipv6;
  };
  ReturnTable* table = nullptr;
  std::vector<Prefix> sources;  // empty: all
  bool clients = false;         // and whoever sends to the pool
};

// The encrypted source of a flow whose destination is no NAT's: its address; returns the port.
uint16_t encrypt_source(const EncryptPlan& plan, const ReturnTable::Flow& flow, uint8_t* address);

enum class Refusal : uint8_t { kNone, kNotIp, kMalformed, kLocal, kTooBig, kTooManyHeaders };

// 8 bytes that are written and read at once.
struct BodyShape {
  uint16_t len;
  BodyKind kind;
  uint8_t flags;
  uint8_t protocol;
  uint8_t traffic_class;
  uint8_t hop_limit;
  bool summed;  // it has a checksum, which is to be written
};

struct EncryptItem {
  Packet* packet;
  uint8_t* body;
  const uint8_t* seal;  // nullptr without one
  uint64_t sum;         // of the body without ports, with the lengths of the pseudo header
  BodyShape shape;
  uint16_t fragment;  // offset and whether more follow, as a Fragment header has them
  uint32_t fragment_id;
};

// Packets of one family whose texts have the same length.
struct EncryptGroup {
  uint32_t count = 0;
  uint32_t text_len;
  bool common = true;  // all are whole TCP or UDP packets without anything more
  EncryptItem items[kMaxBatch];
  alignas(64) uint8_t tuples[3][kMaxBatch * kAesBlock];  // IPv4 has one block of it
  alignas(64) uint8_t src[kMaxBatch * kAesBlock];        // encrypted
  alignas(64) uint8_t dst[kMaxBatch * kAesBlock];
  uint32_t clear4[2][kMaxBatch];
  uint64_t ports[2][kMaxBatch];  // clear, then encrypted
  CcmBatch texts;
  uint8_t seals[kMaxBatch][kSealBytes];
};

class HeaderEncryptor {
 public:
  HeaderEncryptor(const EncryptPlan& plan, const EncryptFrame& frame, const EncryptReturns& returns,
                  uint64_t now_ns, Nonces& nonces)
      : plan_(plan),
        frame_(frame),
        returns_(returns),
        now_(ReturnTable::time_of(now_ns)),
        nonces_(nonces) {
    ipv4_.text_len = kText4.bytes;
    ipv6_.text_len = kText6.bytes;
  }

  // refusals[i] says why packet i can't be encrypted. `seal_place` is where PayloadSeal left what
  // it did, or kNoOffset. Afterwards all others are encrypted.
  void encrypt(Batch& batch, int seal_place, Refusal* refusals);

 private:
  template <bool kIpv6>
  bool prepare_common(Packet& packet, const uint8_t* seal, uint32_t i, Nonce nonce);
  Refusal prepare_any(Packet& packet, const uint8_t* seal, Nonce nonce);
  void set_sum(EncryptItem& item, const Headers& h, uint32_t ports) const;
  void seal_body(EncryptGroup& group, EncryptItem& item, const Body& body);
  bool add_extras(const uint8_t* frame, const Headers& h, const Body& body, uint8_t* text,
                  uint32_t at, uint32_t& end) const;
  EncryptGroup& room_for(bool ipv6, uint32_t text_len);
  void name(EncryptGroup& group, uint32_t i, Nonce nonce) const;

  template <bool kIpv6>
  void encrypt(EncryptGroup& group) const;
  // Which packets are from the pool, and which are to it.
  struct Pooled {
    PacketMask from = 0;
    PacketMask to = 0;
  };
  template <bool kIpv6>
  Pooled use_pool(EncryptGroup& group, const uint64_t (*clear)[kMaxBatch]) const;
  // Into the table of returns, all but those from the pool; clients of the pool where asked to.
  // Not inline: without a table nobody should pay for its registers.
  template <bool kIpv6>
  [[gnu::noinline]] void note_sources(const EncryptGroup& group, const uint64_t (*clear)[kMaxBatch],
                                      Pooled pooled) const;
  void hide_fragment_ids(EncryptGroup& group, const uint8_t* seeds) const;
  template <bool kCommon>
  void write_checks(EncryptGroup& group, const TextLayout& layout) const;
  template <bool kCommon, bool kIpv6>
  void write(EncryptGroup& group) const;

  const EncryptPlan& plan_;
  const EncryptFrame& frame_;
  const EncryptReturns& returns_;
  const uint16_t now_;
  Nonces& nonces_;
  EncryptGroup ipv4_;
  EncryptGroup ipv6_;
};

}  // namespace e2
