// SPDX-License-Identifier: BSD-3-Clause
// How an encrypted packet looks between the gateway and the provider (Embark; C. Lan's
// dissertation, section 4.3.1), and which part of a packet is what.
//
//   Ethernet | IPv6 | Destination Options | [Fragment] | body: TCP, UDP, ICMP, ... and payload
//
// The only option is experimental, type 0x1E (RFC 4727: skip if unknown):
//
//   version 1, flags  1 byte   4 bits each
//   epoch             1        which site key
//   nonce             12
//   tag               8        of the text and of version, flags, epoch and protocol (CCM), and
//                              with kFlagBound of the first 11 bytes of the seal's tag
//   text              n        original header fields, encrypted; n = 6 modulo 8
//   seal              32       with kFlagSealed or kFlagSealedHere: how to open the payload
//
// Text of an IPv4 packet, 22 bytes: flags (4 bits), 0; trailer; identification (2); source,
// destination (4 each); ports (2 each); checksum of the body; checks of source and destination.
// Text of an IPv6 packet, 46 bytes: flags (4 bits), flow label (20 bits); trailer; source,
// destination (16 each); and the rest alike. A trailer is how many bytes followed the IP packet in
// its frame. A check is the sum of the lower 16 bits of an encrypted address and the encrypted
// port: whether the provider wrote something else there.
//
// Then come, with kTextExtras, further fields, each as type (1), length (1), bytes; zeros fill up:
// VLAN tags; IPv4 options; IPv6 extension headers, behind the number of the first; what must be
// added, modulo 2^16, to the right IPv4 checksum; flags and fragment offset of IPv4 where they
// aren't 0 or DF.
//
// A seal, which PayloadSeal leaves in the attribute "embark_seal" for PrefixMatchEncrypt, and
// PrefixMatchDecrypt for PayloadOpen: 1 if there is one, epoch, how many bytes of the body are
// clear (2), nonce (12), tag of the payload and of the 4 bytes before (16, GCM). With kFlagBound
// the option's tag is of it, too, so that no other payload may stand behind that header. Without, a
// cache may send a payload that it has stored on another connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "crypto/ccm.h"
#include "host/headers.h"
#include "host/module_class.h"

namespace e2 {

constexpr uint8_t kExperimentalOption = 0x1e;

constexpr uint8_t kWireVersion = 1;
constexpr uint8_t kFlagSealed = 1;      // by PayloadSeal
constexpr uint8_t kFlagSealedHere = 2;  // by PrefixMatchEncrypt, because it must not be clear
constexpr uint8_t kFlagFragment = 4;    // a Fragment header follows
constexpr uint8_t kFlagBound = 8;       // the seal is of this header and no other

// From the start of the Destination Options header.
constexpr uint32_t kOptionAt = 4;  // what the option holds
constexpr uint32_t kNonceAt = kOptionAt + 2;
constexpr uint32_t kTagAt = kNonceAt + kCcmNonceBytes;
constexpr uint32_t kTextAt = kTagAt + kCcmTagBytes;
constexpr uint32_t kSealBytes = 32;
constexpr uint32_t kMaxOptionBytes = 255;
constexpr uint32_t kMaxText = (kMaxOptionBytes - (kTextAt - kOptionAt) - kSealBytes) / 8 * 8 - 2;
constexpr uint32_t kTextRoom = (kMaxText + kAesBlock - 1) / kAesBlock * kAesBlock;
static_assert(kTextAt == 26 && (kTextAt + kMaxText) % 8 == 0, "headers fill whole words");

constexpr uint8_t kTextIpv6 = 8;
constexpr uint8_t kTextExtras = 4;
constexpr uint8_t kTextDontFragment = 2;

// Where fields are in a text.
struct TextLayout {
  uint32_t trailer, src, dst, address_bytes, ports, checksum, checks, bytes;
};
constexpr TextLayout kText4 = {1, 4, 8, 4, 12, 16, 18, 22};
constexpr TextLayout kText6 = {3, 4, 20, 16, 36, 40, 42, 46};

enum class Extra : uint8_t {
  kEnd = 0,
  kVlanTags = 1,
  kIpv4Options = 2,
  kIpv6Extensions = 3,
  kIpv4Checksum = 4,
  kIpv4Fragment = 5,
};

// What is behind the IP header and its extension headers.
enum class BodyKind : uint8_t {
  kNone,    // no whole IP packet
  kTcp,     // ports are encrypted, the payload may stay
  kUdp,     // the same
  kQuery,   // ICMP with an identifier, which is encrypted as a port
  kError,   // ICMP with a packet in it, which must not stay
  kPiece,   // of TCP or UDP: a fragment other than the first
  kLink,    // ICMPv6 of the link: neighbour and router discovery, multicast listeners
  kOpaque,  // all else: must not stay
};

struct Body {
  BodyKind kind = BodyKind::kNone;
  uint8_t protocol = 0;
  bool fragment = false;  // of a datagram that has more
  uint16_t off = 0;       // in the frame
  uint16_t len = 0;
  uint16_t clear = 0;       // bytes of it that aren't payload
  uint16_t extensions = 0;  // IPv6 extension headers before it, a Fragment header included
};

// What a body is by its first bytes, and how many of them are no payload: by rules that encryption
// doesn't change, but for bodies that are sealed from the start. `first`: not a later fragment.
struct BodyStart {
  BodyKind kind;
  uint16_t clear;
};
BodyStart classify_body(const uint8_t* bytes, uint32_t len, uint8_t protocol, uint8_t ip_version,
                        bool fragment, bool first);

Body find_body(const uint8_t* frame, uint32_t len, const Headers& h);

// Where the part of a packet that a seal covers starts and ends.
struct SealedPart {
  uint32_t start;
  uint32_t end;
  uint32_t clear;  // bytes of the body before it
};
SealedPart find_any_payload(const uint8_t* frame, uint32_t len);

// The body of a whole packet that has IPv4 or IPv6 without anything more, TCP or UDP, and no tags:
// what find_body finds, for a handful of compares. False for all else.
struct CommonBody {
  uint32_t len;
  uint32_t clear;
  uint8_t protocol;
};
template <bool kIpv6>
inline bool find_common_body(const uint8_t* frame, uint32_t len, CommonBody& body) {
  constexpr uint32_t kAt = kEthernetBytes + (kIpv6 ? kIpv6Bytes : kIpv4Bytes);
  if (len < kAt + 8 || len > 0xffff) return false;
  const uint32_t type_and_version = load_be32(frame + 12) >> 8;
  if (kIpv6) {
    if ((type_and_version & 0xfffff0) != 0x86dd60) return false;
    body.len = load_be16(frame + 18);
    body.protocol = frame[20];
    if (body.len < 8) return false;
  } else {
    const uint32_t fragment = load_be16(frame + 20) & 0xbfff;
    const uint32_t total = load_be16(frame + 16);
    if (type_and_version != 0x080045 || fragment != 0 || total < kIpv4Bytes + 8) return false;
    body.len = total - kIpv4Bytes;
    body.protocol = frame[23];
  }
  if (body.len > len - kAt) return false;
  const uint8_t* const bytes = frame + kAt;
  if (body.protocol == kProtoUdp) {
    body.clear = 8;
    return load_be16(bytes + 4) == body.len;
  }
  if (body.protocol != kProtoTcp || body.len < 20) return false;
  body.clear = (bytes[12] >> 4) * 4U;
  return body.clear >= 20 && body.clear <= body.len;
}

inline SealedPart find_payload(const uint8_t* frame, uint32_t len) {
  constexpr uint32_t kAt4 = kEthernetBytes + kIpv4Bytes;
  constexpr uint32_t kAt6 = kEthernetBytes + kIpv6Bytes;
  CommonBody common;
  if (find_common_body<false>(frame, len, common)) {
    return {kAt4 + common.clear, kAt4 + common.len, common.clear};
  }
  if (find_common_body<true>(frame, len, common)) {
    return {kAt6 + common.clear, kAt6 + common.len, common.clear};
  }
  return find_any_payload(frame, len);
}

inline bool has_ports(BodyKind kind) { return kind == BodyKind::kTcp || kind == BodyKind::kUdp; }

// Whether an encrypted address and the port beside it, if any, are the gateway's own.
inline uint16_t address_check(const uint8_t* address, uint64_t port) {
  return static_cast<uint16_t>(load_be16(address + 14) + port);
}

// Where the checksum is in a body; 0 where it has none or none that is known.
inline uint32_t body_checksum_at(BodyKind kind) {
  switch (kind) {
    case BodyKind::kTcp:
      return 16;
    case BodyKind::kUdp:
      return 6;
    case BodyKind::kQuery:
    case BodyKind::kError:
      return 2;
    default:
      return 0;
  }
}

// Where packets go: on by gate 0 for a result of 0, else to the drop gates from `first` on, which
// are in the order of the results.
template <typename Result>
inline void gates_of_results(const Result* results, uint32_t count, Gate first, Gate* gates) {
  for (uint32_t i = 0; i < count; ++i) {
    const auto result = static_cast<uint32_t>(results[i]);
    gates[i] = result == 0 ? 0 : static_cast<Gate>(first + result - 1);
  }
}

// The attribute that carries a seal.
constexpr const char* kSealAttribute = "embark_seal";
struct Seal {
  uint8_t present;
  uint8_t epoch;
  uint8_t clear[2];  // big-endian
  uint8_t nonce[kCcmNonceBytes];
  uint8_t tag[kGcmTagBytes];

  static constexpr size_t kAuthenticated = 4;  // bytes of it that the tag is of
};
static_assert(sizeof(Seal) == kSealBytes, "as it is sent");

// What is authenticated with a text, in the one block that CCM has for it: flags, epoch and
// protocol, and as much of a seal's tag as has room there.
constexpr size_t kNamedBytes = 3;
constexpr size_t kBoundTagBytes = kCcmMaxAad - kNamedBytes;
inline void set_named(CcmBatch& batch, size_t i, uint64_t bytes, const uint8_t* bound_seal) {
  if (bound_seal == nullptr) {
    batch.set_aad(i, bytes, kNamedBytes);
    return;
  }
  const uint8_t* const tag = bound_seal + offsetof(Seal, tag);
  uint64_t first;  // of it, the 3 bytes before `rest`
  uint64_t rest;
  std::memcpy(&first, tag, sizeof first);
  std::memcpy(&rest, tag + kBoundTagBytes - sizeof rest, sizeof rest);
  batch.set_aad(i, bytes | first << 8 * kNamedBytes, kCcmMaxAad, rest);
}

}  // namespace e2
