// SPDX-License-Identifier: BSD-3-Clause
#include "nf/esp.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "crypto/private_file.h"
#include "host/headers.h"
#include "modules/addresses.h"

namespace e2 {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 18;
constexpr uint64_t kFirstSpi = 256;  // those below are reserved
constexpr size_t kMaxKeyBytes = kAes256KeyBytes + kEspSaltBytes;

// The words of a line. Views: no copies of keys stay behind.
std::vector<std::string_view> words_of(std::string_view line) {
  line = line.substr(0, line.find('#'));
  std::vector<std::string_view> words;
  for (;;) {
    const size_t start = line.find_first_not_of(" \t\r");
    if (start == std::string_view::npos) return words;
    line.remove_prefix(start);
    const size_t end = std::min(line.find_first_of(" \t\r"), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

bool read_spi(std::string_view text, uint32_t& spi) {
  const bool hex = text.substr(0, 2) == "0x";
  const std::string_view digits = text.substr(hex ? 2 : 0);
  if (digits.empty() || digits.size() > 10) return false;
  uint64_t value = 0;
  for (const char c : digits) {
    const int digit = c >= '0' && c <= '9'          ? c - '0'
                      : hex && c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : hex && c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                    : -1;
    if (digit < 0) return false;
    value = value * (hex ? 16 : 10) + static_cast<uint64_t>(digit);
  }
  spi = static_cast<uint32_t>(value);
  return value >= kFirstSpi && value <= UINT32_MAX;
}

Status read_key(std::string_view text, std::shared_ptr<EspSa>& sa) {
  const size_t bytes = text.size() / 2;
  uint8_t secret[kMaxKeyBytes] = {};
  const bool fits = text.size() % 2 == 0 && (bytes == kAesKeyBytes + kEspSaltBytes ||
                                             bytes == kAes256KeyBytes + kEspSaltBytes);
  const bool good = fits && read_hex(text, secret);
  if (good) sa = std::make_shared<EspSa>(secret, bytes - kEspSaltBytes);
  explicit_bzero(secret, sizeof secret);
  if (good) return {};
  // Not the text: it may be most of a key.
  return Status::invalid("the key must be 40 hexadecimal digits, of AES-128, or 72, of AES-256");
}

Status read_ends(const std::string& src_text, const std::string& dst_text, EspSa& sa) {
  const std::string src = read_address(src_text);
  const std::string dst = read_address(dst_text);
  for (const bool first : {true, false}) {
    if (!(first ? src : dst).empty()) continue;
    return Status::invalid("'" + (first ? src_text : dst_text) +
                           "' must be an IPv4 or IPv6 address");
  }
  if (src.size() != dst.size()) {
    return Status::invalid("'" + dst_text + "' must be of the same family as '" + src_text + "'");
  }
  sa.ipv6 = src.size() == sizeof sa.src;
  std::copy(src.begin(), src.end(), sa.src);
  std::copy(dst.begin(), dst.end(), sa.dst);
  return {};
}

Status read_sa(const std::vector<std::string_view>& words, std::shared_ptr<EspSa>& sa) {
  if (words.size() < 4) {
    return Status::invalid("must be SPI KEY SOURCE DESTINATION [esn] [no-anti-replay]");
  }
  uint32_t spi = 0;
  if (!read_spi(words[0], spi)) {
    return Status::invalid("the SPI '" + std::string(words[0]).substr(0, 12) +
                           "' must be a number within 256..4294967295");
  }
  Status status = read_key(words[1], sa);
  if (status.ok()) status = read_ends(std::string(words[2]), std::string(words[3]), *sa);
  if (!status.ok()) return status;
  sa->spi = spi;
  for (size_t i = 4; i < words.size(); ++i) {
    if (words[i] == "esn") {
      sa->esn = true;
    } else if (words[i] == "no-anti-replay") {
      sa->anti_replay = false;
    } else {
      return Status::invalid("'" + std::string(words[i]).substr(0, 20) +
                             "' is unknown; expected esn or no-anti-replay");
    }
  }
  // Which upper half a number has is known from those before it.
  if (sa->esn && !sa->anti_replay) return Status::invalid("esn needs the protection from replay");
  return {};
}

Status add_sa(std::shared_ptr<EspSa> sa, EspSas& sas) {
  for (const auto& other : sas) {
    if (other->spi == sa->spi) return Status::invalid("the SPI is given twice");
    if (other->key_print == sa->key_print) {
      return Status::invalid("the key is that of SPI " + spi_text(other->spi) +
                             "; each needs one of its own");
    }
  }
  if (sas.size() == kMaxEspSas) {
    return Status::invalid("a file must have at most " + std::to_string(kMaxEspSas));
  }
  sas.push_back(std::move(sa));
  return {};
}

Status parse(std::string_view text, EspSas& sas) {
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const auto words = words_of(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (words.empty()) continue;
    std::shared_ptr<EspSa> sa;
    Status status = read_sa(words, sa);
    if (status.ok()) status = add_sa(std::move(sa), sas);
    if (!status.ok()) {
      status.message = "line " + std::to_string(number) + ": " + status.message;
      return status;
    }
  }
  return sas.empty() ? Status::invalid("it has no security association") : Status();
}

}  // namespace

EspSa::EspSa(const uint8_t* key_and_salt, size_t key_bytes)
    : key_print(sha256(std::string_view(reinterpret_cast<const char*>(key_and_salt), key_bytes))),
      key(key_and_salt, key_bytes) {
  std::memcpy(salt, key_and_salt + key_bytes, sizeof salt);
}

bool EspSa::operator==(const EspSa& other) const {
  return spi == other.spi && ipv6 == other.ipv6 && esn == other.esn &&
         anti_replay == other.anti_replay && key_print == other.key_print &&
         std::equal(src, src + sizeof src, other.src) &&
         std::equal(dst, dst + sizeof dst, other.dst) &&
         std::equal(salt, salt + sizeof salt, other.salt);
}

uint32_t EspSa::ip_bytes() const { return ipv6 ? kIpv6Bytes : kIpv4Bytes; }

void EspSa::nonce(const uint8_t* iv, uint8_t* to) const {
  std::memcpy(to, salt, sizeof salt);
  std::memcpy(to + sizeof salt, iv, kEspIvBytes);
}

uint32_t EspSa::aad(uint64_t number, uint8_t* to) const {
  store_be32(to, spi);
  if (!esn) {
    store_be32(to + 4, static_cast<uint32_t>(number));
    return 8;
  }
  store_be64(to + 4, number);
  return kMaxEspAadBytes;
}

Status read_esp_sas(const std::string& path, EspSas& sas) {
  std::string text;
  Status status = read_private_file(path, kMaxFileBytes, text);
  if (!status.ok()) return status;
  status = parse(text, sas);
  explicit_bzero(text.data(), text.size());
  if (!status.ok()) status.message = "'" + path + "': " + status.message;
  return status;
}

std::string spi_text(uint32_t spi) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "0x";
  for (int shift = 28; shift >= 0; shift -= 4) text += kDigits[spi >> shift & 0xf];
  return text;
}

}  // namespace e2
