// SPDX-License-Identifier: BSD-3-Clause
// Addresses in arguments: text to numbers, with an error that says what was wrong.
#pragma once

#include <arpa/inet.h>

#include <cstdint>
#include <string>

#include "host/args.h"
#include "host/headers.h"
#include "host/status.h"

namespace e2 {

// An IPv4 address in host order; `where` names the argument.
inline Status read_ipv4(const Args& arg, const std::string& where, uint32_t& address) {
  const std::string& text = arg.as_string();
  in_addr parsed;
  if (inet_pton(AF_INET, text.c_str(), &parsed) != 1) {
    return Status::invalid(where + " is \"" + text +
                           "\"; must be an IPv4 address such as 192.0.2.1");
  }
  address = load_be32(&parsed);
  return {};
}

// Bytes of an IPv4 or IPv6 address, 4 or 16; none where the text is not one.
inline std::string read_address(const std::string& text) {
  char bytes[16];
  if (inet_pton(AF_INET, text.c_str(), bytes) == 1) return {bytes, 4};
  if (inet_pton(AF_INET6, text.c_str(), bytes) == 1) return {bytes, 16};
  return {};
}

// "ADDRESS/BITS" to the bytes of the address and how many bits count; all do without "/BITS". False
// where the text is neither.
inline bool parse_prefix(const std::string& text, std::string& bytes, uint32_t& bits) {
  const size_t slash = text.find('/');
  bytes = read_address(text.substr(0, slash));
  bits = static_cast<uint32_t>(bytes.size() * 8);
  if (slash == std::string::npos) return !bytes.empty();
  const std::string digits = text.substr(slash + 1);
  uint32_t given = 0;
  for (const char c : digits) given = given * 10 + static_cast<uint32_t>(c - '0');
  const bool number = !digits.empty() && digits.size() <= 3 &&
                      digits.find_first_not_of("0123456789") == std::string::npos;
  if (bytes.empty() || !number || given > bits) return false;
  bits = given;
  return true;
}

// A MAC address as a number: the first byte on the wire is the most significant of 48 bits.
inline Status read_mac(const Args& arg, const std::string& where, uint64_t& address) {
  const std::string& text = arg.as_string();
  uint64_t value = 0;
  uint32_t digits = 0;
  uint32_t bytes = 1;
  bool good = true;
  for (const char c : text) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (c == ':') {
      good &= digits != 0;
      digits = 0;
      ++bytes;
      value <<= 8;
    } else {
      good &= digit >= 0 && ++digits <= 2;
      const uint64_t byte = (value & 0xff) << 4 | static_cast<uint64_t>(digit & 0xf);
      value = (value & ~0xffULL) | (byte & 0xff);
    }
    if (!good || bytes > 6) break;
  }
  if (!good || bytes != 6 || digits == 0) {
    return Status::invalid(where + " is \"" + text +
                           "\"; must be a MAC address such as 02:00:00:00:00:01");
  }
  address = value;
  return {};
}

}  // namespace e2
