// SPDX-License-Identifier: BSD-3-Clause
#include "modules/bpf_text.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <cstring>

namespace e2 {
namespace {

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || (c != 0 && std::strchr(".:/-_\\", c));
}

int hex_digit(char c) {
  const auto u = static_cast<unsigned char>(c);
  if (std::isdigit(u)) return c - '0';
  return std::isxdigit(u) ? std::tolower(u) - 'a' + 10 : -1;
}

}  // namespace

bool split_tokens(const std::string& text, std::vector<Token>& tokens, Token& bad) {
  tokens.clear();
  size_t at = 0;
  while (at < text.size()) {
    if (std::isspace(static_cast<unsigned char>(text[at]))) {
      ++at;
      continue;
    }
    size_t end = at;
    while (end < text.size() && is_word(text[end])) ++end;
    const bool word = end > at;
    if (!word) {
      const std::string two = text.substr(at, 2);
      const bool pair =
          two == "&&" || two == "||" || two == "<=" || two == ">=" || two == "==" || two == "!=";
      end = at + (pair ? 2 : 1);
    }
    Token token{text.substr(at, end - at), at + 1, word};
    if (!word && token.text.size() == 1 &&
        std::string("()!<>=").find(token.text) == std::string::npos) {
      bad = std::move(token);
      return false;
    }
    if (token.text == "&&") token.text = "and";
    if (token.text == "||") token.text = "or";
    if (token.text == "!") token.text = "not";
    tokens.push_back(std::move(token));
    at = end;
  }
  tokens.push_back({kEnd, text.size() + 1, false});
  return true;
}

bool read_number(const std::string& text, uint64_t most, uint32_t& number) {
  const bool hex = text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
  const uint64_t base = hex ? 16 : 10;
  uint64_t value = 0;
  for (size_t i = hex ? 2 : 0; i < text.size(); ++i) {
    const int digit = hex_digit(text[i]);
    if (digit < 0 || static_cast<uint64_t>(digit) >= base) return false;
    value = value * base + static_cast<uint64_t>(digit);
    if (value > most) return false;
  }
  number = static_cast<uint32_t>(value);
  return !text.empty();
}

bool read_mac(const std::string& text, uint8_t* mac) {
  size_t at = 0;
  for (int i = 0; i < 6; ++i) {
    if (i != 0) {
      if (at >= text.size() || text[at] != ':') return false;
      ++at;
    }
    const int high = at < text.size() ? hex_digit(text[at]) : -1;
    if (high < 0) return false;
    ++at;
    const int low = at < text.size() ? hex_digit(text[at]) : -1;
    if (low >= 0) ++at;
    mac[i] = static_cast<uint8_t>(low < 0 ? high : 16 * high + low);
  }
  return at == text.size();
}

std::string read_ip_range(const std::string& text, const std::string& mask, bool net,
                          IpRange& range) {
  std::string address = text;
  std::string length_text;
  const size_t slash = text.find('/');
  if (slash != std::string::npos) {
    if (!net) return "expected one address, without a length";
    address = text.substr(0, slash);
    length_text = text.substr(slash + 1);
  }
  uint32_t length = 32;
  if (address.find(':') != std::string::npos) {
    range.version = 6;
    length = 128;
    if (inet_pton(AF_INET6, address.c_str(), range.address) != 1) return "expected an address";
    if (!mask.empty()) return "expected a /length, since IPv6 takes no mask";
  } else {
    range.version = 4;
    const auto dots = std::count(address.begin(), address.end(), '.');
    if (net && dots < 3) {
      length = 8 * static_cast<uint32_t>(dots + 1);
      for (auto i = dots; i < 3; ++i) address += ".0";
    }
    if (inet_pton(AF_INET, address.c_str(), range.address) != 1) {
      return std::string("expected ") + (net ? "a net" : "an address") +
             " in numbers; names are not resolved";
    }
  }
  const uint32_t most = range.version == 6 ? 128 : 32;
  if (slash != std::string::npos && !read_number(length_text, most, length)) {
    return "expected a length from 0 to " + std::to_string(most) + " after the /";
  }
  for (uint32_t i = 0; i < most / 8; ++i) {
    const uint32_t kept = std::min(length > 8 * i ? length - 8 * i : 0, 8u);
    range.mask[i] = static_cast<uint8_t>(0xff00 >> kept);
  }
  if (!mask.empty() && inet_pton(AF_INET, mask.c_str(), range.mask) != 1) {
    return "expected a mask such as 255.255.0.0 after it";
  }
  for (uint32_t i = 0; i < 16; ++i) {
    if ((range.address[i] & ~range.mask[i]) != 0) return "expected no bits beyond the net's mask";
  }
  return "";
}

}  // namespace e2
