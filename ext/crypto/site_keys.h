// SPDX-License-Identifier: BSD-3-Clause
// SiteKeys: every key of a site, all made from the one in its key file (HKDF, RFC 5869).
//
// A key file holds the 32 bytes of the site key as 64 hexadecimal digits and may be read by its
// owner only. Sites that share it encrypt alike. No key ever appears in a message.
//
// | key           | for                                                                        |
// |---------------|----------------------------------------------------------------------------|
// | flow4, flow6  | the seed of a flow: a PRF of its 5-tuple (one block; CBC-MAC over three)     |
// | field         | PrefixMatch's suffixes, one for each field                                 |
// | header        | the original header fields in the option (CCM)                             |
// | payload       | payloads (GCM)                                                             |
// | pool          | the reserved suffix of addresses that the provider may write               |
// | rule_sets     | names of sets of values, under which a map's prefixes are kept (HMAC)      |
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "crypto/aes.h"
#include "host/status.h"

namespace e2 {

constexpr size_t kSiteKeyBytes = 32;

enum PrefixField : uint32_t { kSrcAddress, kDstAddress, kSrcPort, kDstPort, kPrefixFields };

struct SiteKeys {
  explicit SiteKeys(const uint8_t* site_key);  // kSiteKeyBytes
  ~SiteKeys();
  SiteKeys(const SiteKeys&) = delete;
  SiteKeys& operator=(const SiteKeys&) = delete;

  uint8_t field[kPrefixFields][kAesKeyBytes];
  AesKey flow4;
  AesKey flow6;
  AesKey header;
  GcmKey payload;
  AesKey pool;
  uint8_t rule_sets[kAesKeyBytes];

  // A number for a text, as good as random without the key: the first 16 bytes of its HMAC-SHA256.
  std::array<uint8_t, kAesBlock> name_of(std::string_view text) const;

 private:
  struct Derived;
  explicit SiteKeys(const Derived& derived);
};

// ENOENT and the like where the file can't be read, EACCES where others can read it too.
Status read_site_keys(const std::string& path, std::shared_ptr<const SiteKeys>& keys);

}  // namespace e2
