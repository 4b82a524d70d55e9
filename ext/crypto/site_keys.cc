// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/site_keys.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "crypto/private_file.h"
#include "crypto/sha256.h"

namespace e2 {
namespace {

constexpr char kSalt[] = "bess-e2 embark 1";
constexpr size_t kDigits = 2 * kSiteKeyBytes;

}  // namespace

struct SiteKeys::Derived {
  explicit Derived(const uint8_t* site_key) {
    Sha256Digest extracted = hkdf_extract(
        kSalt, std::string_view(reinterpret_cast<const char*>(site_key), kSiteKeyBytes));
    constexpr const char* kNames[kCount] = {"source address", "destination address",
                                            "source port",    "destination port",
                                            "flow IPv4",      "flow IPv6",
                                            "header",         "payload",
                                            "pool",           "rule sets"};
    for (size_t i = 0; i < kCount; ++i) {
      hkdf_expand(extracted, kNames[i], keys[i], kAesKeyBytes);
    }
    explicit_bzero(extracted.data(), extracted.size());
  }
  ~Derived() { explicit_bzero(keys, sizeof keys); }
  Derived(const Derived&) = delete;
  Derived& operator=(const Derived&) = delete;

  static constexpr size_t kCount = kPrefixFields + 6;
  uint8_t keys[kCount][kAesKeyBytes];
};

SiteKeys::SiteKeys(const uint8_t* site_key) : SiteKeys(Derived(site_key)) {}

SiteKeys::SiteKeys(const Derived& derived)
    : flow4(derived.keys[kPrefixFields]),
      flow6(derived.keys[kPrefixFields + 1]),
      header(derived.keys[kPrefixFields + 2]),
      payload(derived.keys[kPrefixFields + 3]),
      pool(derived.keys[kPrefixFields + 4]) {
  std::memcpy(field, derived.keys, sizeof field);
  std::memcpy(rule_sets, derived.keys[kPrefixFields + 5], sizeof rule_sets);
}

SiteKeys::~SiteKeys() {
  explicit_bzero(field, sizeof field);
  explicit_bzero(rule_sets, sizeof rule_sets);
}

std::array<uint8_t, kAesBlock> SiteKeys::name_of(std::string_view text) const {
  const std::string_view key(reinterpret_cast<const char*>(rule_sets), sizeof rule_sets);
  const Sha256Digest digest = hmac_sha256(key, text);
  std::array<uint8_t, kAesBlock> name;
  std::copy_n(digest.begin(), name.size(), name.begin());
  return name;
}

Status read_site_keys(const std::string& path, std::shared_ptr<const SiteKeys>& keys) {
  std::string text;
  Status status = read_private_file(path, kDigits + 1, text);
  if (!status.ok() && status.code != EFBIG) return status;
  if (text.size() == kDigits + 1 && text.back() == '\n') text.pop_back();
  uint8_t site_key[kSiteKeyBytes] = {};
  const bool good = text.size() == kDigits && read_hex(text, site_key);
  if (good) keys = std::make_shared<const SiteKeys>(site_key);
  explicit_bzero(text.data(), text.size());
  explicit_bzero(site_key, sizeof site_key);
  if (good) return {};
  return Status::invalid("key file '" + path + "' must hold 64 hexadecimal digits on one line");
}

}  // namespace e2
