// SPDX-License-Identifier: BSD-3-Clause
#include "modules/flow_affinity.h"

#include <arpa/inet.h>

#include <utility>

namespace e2 {
namespace {

constexpr const char* kFields[] = {"src", "dst", "sport", "dport", "proto"};
constexpr uint64_t kVersionMask = uint64_t{0xff} << 40;
// Of ports and protocol: where they stand in the last word of a hash.
constexpr uint32_t kShifts[] = {0, 0, 0, 16, 32};
constexpr uint64_t kWidths[] = {0, 0, 0xffff, 0xffff, 0xff};

std::string quoted(const std::string& text) { return "'" + text + "'"; }

// An address in text; `version` 0 where it is none.
struct Address {
  uint32_t version = 0;
  uint8_t bytes[16] = {};
};
Address parse_address(const std::string& text) {
  Address address;
  if (inet_pton(AF_INET, text.c_str(), address.bytes) == 1) {
    address.version = 4;
  } else if (inet_pton(AF_INET6, text.c_str(), address.bytes) == 1) {
    address.version = 6;
  }
  return address;
}

Status read_mask(const Args& field, const char* member, uint32_t version, const std::string& where,
                 uint8_t* mask) {
  const std::string& text = field[member].as_string();
  if (text.empty()) return {};
  const Address address = parse_address(text);
  if (address.version != version) {
    return Status::invalid(where + "." + member + ": is " + quoted(text) +
                           (version == 4 ? "; must be an IPv4 mask such as 255.255.255.0"
                                         : "; must be an IPv6 mask such as ffff:ffff::"));
  }
  std::memcpy(mask, address.bytes, version == 4 ? 4 : 16);
  return {};
}

std::string address_text(const uint8_t* bytes, bool ipv6) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(ipv6 ? AF_INET6 : AF_INET, bytes, text, sizeof text);
  return text;
}

}  // namespace

Status FlowAffinity::init(const Args::List& fields, bool symmetric, const std::string& where) {
  symmetric_ = symmetric;
  if (fields.empty()) return {};
  last_mask_ = kVersionMask;
  ipv4_mask_ = 0;
  std::memset(ipv6_mask_, 0, sizeof ipv6_mask_);
  for (size_t i = 0; i < fields.size(); ++i) {
    const std::string at = where + "[" + std::to_string(i) + "]";
    for (size_t other = 0; other < i; ++other) {
      if (fields[other]["name"].as_string() == fields[i]["name"].as_string()) {
        return Status::invalid(at + ".name: is " + quoted(fields[i]["name"].as_string()) +
                               ", as is that of " + where + "[" + std::to_string(other) +
                               "]; name each field once");
      }
    }
    Status status = read_field(fields[i], at);
    if (!status.ok()) return status;
  }
  uint64_t missing = ~ipv4_mask_ | (~last_mask_ & 0xffffffffff);
  for (uint64_t mask : ipv6_mask_) missing |= ~mask;
  one_connection_ = missing == 0;
  return symmetric ? check_symmetry(where) : Status{};
}

Status FlowAffinity::read_field(const Args& field, const std::string& where) {
  const std::string& name = field["name"].as_string();
  size_t which = 0;
  while (which < 5 && name != kFields[which]) ++which;
  if (which == 5) {
    return Status::invalid(where + ".name: is " + quoted(name) +
                           "; must be src, dst, sport, dport or proto");
  }
  const uint64_t mask = field["mask"].as_uint();
  if (which >= 2) {
    if (mask > kWidths[which]) {
      return Status::invalid(where + ".mask: is " + std::to_string(mask) + "; must be at most " +
                             std::to_string(kWidths[which]));
    }
    for (const char* member : {"ipv4_mask", "ipv6_mask"}) {
      if (field[member].as_string().empty()) continue;
      return Status::invalid(where + "." + member + ": is for addresses; " + quoted(name) +
                             " has a mask");
    }
    last_mask_ |= (mask == 0 ? kWidths[which] : mask) << kShifts[which];
    return {};
  }
  if (mask != 0) {
    return Status::invalid(where + ".mask: is for ports and the protocol; " + quoted(name) +
                           " has an ipv4_mask and an ipv6_mask");
  }
  uint8_t bits[16];
  std::memset(bits, 0xff, sizeof bits);
  Status status = read_mask(field, "ipv4_mask", 4, where, bits);
  if (!status.ok()) return status;
  std::memcpy(reinterpret_cast<uint8_t*>(&ipv4_mask_) + 4 * which, bits, 4);
  std::memset(bits, 0xff, sizeof bits);
  status = read_mask(field, "ipv6_mask", 6, where, bits);
  if (status.ok()) std::memcpy(ipv6_mask_ + 2 * which, bits, sizeof bits);
  return status;
}

Status FlowAffinity::check_symmetry(const std::string& where) const {
  const bool addresses = ipv4_mask_ >> 32 == (ipv4_mask_ & 0xffffffff) &&
                         ipv6_mask_[0] == ipv6_mask_[2] && ipv6_mask_[1] == ipv6_mask_[3];
  const bool ports = (last_mask_ >> 16 & 0xffff) == (last_mask_ & 0xffff);
  if (addresses && ports) return {};
  return Status::invalid(where + ": must have " + (addresses ? "sport and dport" : "src and dst") +
                         " with equal masks, or neither, where `symmetric` is set");
}

bool FlowAffinity::order_ipv6(FlowKey& key) {
  const int order = std::memcmp(key.words + 1, key.words + 3, 16);
  const uint64_t first_port = key.words[0] & 0xffff;
  const uint64_t second_port = key.words[0] >> 16 & 0xffff;
  if (order < 0 || (order == 0 && first_port <= second_port)) return false;
  key.words[0] = swapped_ports(key.words[0]);
  std::swap(key.words[1], key.words[3]);
  std::swap(key.words[2], key.words[4]);
  return true;
}

Status FlowAffinity::read(const Args& flow, const std::string& where, FlowKey& key) const {
  Address ends[2];
  for (size_t i = 0; i < 2; ++i) {
    const std::string& text = flow[kFields[i]].as_string();
    if (text.empty()) continue;
    ends[i] = parse_address(text);
    if (ends[i].version == 0) {
      return Status::invalid(where + "." + kFields[i] + ": is " + quoted(text) +
                             "; must be an IPv4 or IPv6 address");
    }
  }
  for (size_t i = 0; i < 2; ++i) {
    const bool needed = (ipv4_mask_ >> 32 * i & 0xffffffff) != 0 || ipv6_mask_[2 * i] != 0 ||
                        ipv6_mask_[2 * i + 1] != 0;
    if (ends[i].version != 0 || (!needed && ends[1 - i].version != 0)) continue;
    return Status::invalid(where + "." + kFields[i] +
                           ": is missing; must be an address, as it is part of the flow");
  }
  const uint32_t version = ends[0].version != 0 ? ends[0].version : ends[1].version;
  if (ends[0].version != 0 && ends[1].version != 0 && ends[0].version != ends[1].version) {
    return Status::invalid(where + ": has one IPv4 and one IPv6 address; must be of one kind");
  }
  std::memset(key.words, 0, sizeof key.words);
  key.words[0] = uint64_t{version} << 40;
  for (size_t i = 2; i < 5; ++i) {
    const uint64_t value = flow[kFields[i]].as_uint();
    if (value > kWidths[i]) {
      return Status::invalid(where + "." + kFields[i] + ": is " + std::to_string(value) +
                             "; must be at most " + std::to_string(kWidths[i]));
    }
    key.words[0] |= value << kShifts[i];
  }
  key.words[0] &= last_mask_;
  auto* bytes = reinterpret_cast<uint8_t*>(key.words + 1);
  const size_t size = version == 4 ? 4 : 16;
  for (size_t i = 0; i < 2; ++i) std::memcpy(bytes + i * size, ends[i].bytes, size);
  if (version == 4) {
    key.words[1] &= ipv4_mask_;
  } else {
    for (int w = 0; w < 4; ++w) key.words[1 + w] &= ipv6_mask_[w];
  }
  if (symmetric_) (void)(version == 4 ? order_ipv4(key) : order_ipv6(key));
  return {};
}

Args FlowAffinity::describe(const FlowKey& key) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(key.words + 1);
  Args flow;
  flow.set("src", address_text(bytes, key.ipv6()));
  flow.set("dst", address_text(bytes + (key.ipv6() ? 16 : 4), key.ipv6()));
  for (size_t i = 2; i < 5; ++i) flow.set(kFields[i], key.words[0] >> kShifts[i] & kWidths[i]);
  return flow;
}

}  // namespace e2
