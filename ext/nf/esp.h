// SPDX-License-Identifier: BSD-3-Clause
// ESP in tunnel mode with AES-GCM (RFC 4303, RFC 4106): the packet on the wire, and the security
// associations (SAs) of a file, which EspEncrypt and EspDecrypt share.
//
//   Ethernet | outer IP | SPI (4) | sequence number (4) | IV (8) | sealed | tag (16)
//   sealed: inner IP packet | padding 1, 2, 3 | length of the padding (1) | next header (1)
//
// The nonce is salt and IV. Authenticated beside what is sealed: the SPI and the sequence number,
// all 64 bits of it where it is extended.
//
// A file of SAs may be used by its owner only, as it holds keys. It has a line for each, empty
// lines, and comments from a # on:
//
//   SPI KEY SOURCE DESTINATION [esn] [no-anti-replay]
//
//   SPI             256 to 4294967295, no two alike; 0x and hexadecimal digits, or decimal ones
//   KEY             the key and 4 bytes of salt in hexadecimal digits: 40 for AES-128, 72 for
//                   AES-256, no two alike, as `ip xfrm` takes them for rfc4106(gcm(aes))
//   SOURCE          outer addresses, both IPv4 or both IPv6
//   esn             sequence numbers have 64 bits, of which half are sent (RFC 4303, 2.2.1)
//   no-anti-replay  the receiver doesn't look at sequence numbers, and the sender's may begin anew;
//                   not with esn
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "crypto/aes.h"
#include "crypto/sha256.h"
#include "host/status.h"

namespace e2 {

constexpr uint8_t kProtoIpv4 = 4;
constexpr uint8_t kProtoIpv6 = 41;
constexpr uint8_t kProtoEsp = 50;
constexpr uint32_t kEspIvBytes = 8;
constexpr uint32_t kEspHeadBytes = 8 + kEspIvBytes;
constexpr uint32_t kEspTailBytes = 2;  // length of the padding, next header
constexpr uint32_t kEspSaltBytes = 4;
constexpr uint32_t kMaxEspSas = 1024;

// What is authenticated beside the sealed part.
constexpr uint32_t kMaxEspAadBytes = 12;

struct EspSa {
  EspSa(const uint8_t* key_and_salt, size_t key_bytes);

  uint32_t spi = 0;
  bool ipv6 = false;
  bool esn = false;
  bool anti_replay = true;
  uint8_t src[16] = {};
  uint8_t dst[16] = {};
  uint8_t salt[kEspSaltBytes];
  Sha256Digest key_print;  // tells keys apart
  GcmKey key;

  bool operator==(const EspSa& other) const;
  uint32_t ip_bytes() const;

  // Writes the nonce (kGcmNonceBytes) of an IV.
  void nonce(const uint8_t* iv, uint8_t* to) const;
  // Writes what is authenticated of a sequence number; returns how many bytes.
  uint32_t aad(uint64_t number, uint8_t* to) const;
};

using EspSas = std::vector<std::shared_ptr<const EspSa>>;

// At least one. EACCES where others may use the file, EINVAL with the line where one is wrong.
Status read_esp_sas(const std::string& path, EspSas& sas);

// 0x00000100
std::string spi_text(uint32_t spi);

}  // namespace e2
