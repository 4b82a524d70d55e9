// SPDX-License-Identifier: BSD-3-Clause
// The words of filter expressions (bpf_filter.h): tokens, names, numbers and addresses.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "host/headers.h"

namespace e2 {

constexpr uint16_t kEtherRarp = 0x8035;

// The text of the last token, which stands for the end of the expression.
constexpr char kEnd[] = "the end";

struct Token {
  std::string text;
  size_t column = 0;  // from 1
  bool word = false;  // a word, a number or an address, rather than an operator
};

// Splits an expression; `&&`, `||` and `!` become `and`, `or` and `not`. False, and the token that
// is none, when a character does not belong.
bool split_tokens(const std::string& text, std::vector<Token>& tokens, Token& bad);

struct Name {
  const char* text;
  uint32_t number;
};
constexpr Name kEtherNames[] = {
    {"ip", kEtherIpv4}, {"ip6", kEtherIpv6}, {"arp", kEtherArp}, {"rarp", kEtherRarp}};
constexpr Name kProtoNames[] = {{"tcp", kProtoTcp},
                                {"udp", kProtoUdp},
                                {"sctp", kProtoSctp},
                                {"icmp", kProtoIcmp},
                                {"icmp6", kProtoIcmpv6}};

template <size_t N>
bool find_name(const Name (&names)[N], const std::string& text, uint32_t& number) {
  for (const Name& name : names) {
    if (text != name.text) continue;
    number = name.number;
    return true;
  }
  return false;
}

// Decimal, or hexadecimal after 0x; false for anything else and for more than `most`.
bool read_number(const std::string& text, uint64_t most, uint32_t& number);

// Six parts of one or two hexadecimal digits between colons.
bool read_mac(const std::string& text, uint8_t* mac);

struct IpRange {
  uint8_t version = 0;
  uint8_t address[16] = {};
  uint8_t mask[16] = {};
};

// Reads an address, or where `net` also ADDRESS/LENGTH, 1 to 3 numbers of an IPv4 address, and the
// mask that is given apart. Returns what is wrong, or nothing.
std::string read_ip_range(const std::string& text, const std::string& mask, bool net,
                          IpRange& range);

}  // namespace e2
