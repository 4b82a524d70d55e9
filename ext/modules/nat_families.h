// SPDX-License-Identifier: BSD-3-Clause
// What differs between IPv4 and IPv6 for a NAT: addresses, endpoints, and where they are in a
// packet.
//
// An endpoint is protocol, address, and TCP port, UDP port or identifier of an ICMP echo. Encrypted
// packets (embark_wire.h) have ICMP for IPv4 behind an IPv6 header, so IPv6 knows both ICMPs.
// Endpoint() is none; one without an initialiser is undefined, so that arrays cost nothing.
#pragma once

#include <cstdint>
#include <cstring>

#include "host/flow_hash.h"
#include "modules/checksum_change.h"

namespace e2 {

struct Ipv4Family {
  using Address = uint32_t;  // in host order

  // One word: address << 32 | port << 16 | protocol; 0 is no endpoint.
  class Endpoint {
   public:
    Endpoint() = default;
    Endpoint(Address address, uint32_t port, uint8_t proto)
        : word_(static_cast<uint64_t>(address) << 32 | static_cast<uint64_t>(port) << 16 | proto) {}
    bool none() const { return word_ == 0; }
    Address address() const { return static_cast<uint32_t>(word_ >> 32); }
    uint16_t port() const { return static_cast<uint16_t>(word_ >> 16); }
    uint8_t proto() const { return static_cast<uint8_t>(word_); }
    bool operator==(const Endpoint& other) const { return word_ == other.word_; }
    bool operator<(const Endpoint& other) const { return word_ < other.word_; }

   private:
    friend struct Ipv4Family;
    uint64_t word_;
  };

  static constexpr uint8_t kVersion = 4;
  static constexpr size_t kAddressBytes = 4;
  static constexpr uint32_t kSourceAt = 12;
  static constexpr uint32_t kDestinationAt = 16;

  static Address load(const uint8_t* from) { return load_be32(from); }
  static void store(uint8_t* to, Address address) { store_be32(to, address); }
  // What replacing one address by another adds to the complement of a checksum.
  static uint32_t change(Address before, Address after) { return change32(before, after); }
  // Its upper bits count. The seed is a secret, so that nobody can choose endpoints that meet.
  static uint64_t hash(const Endpoint& endpoint, uint64_t seed) {
    constexpr uint64_t kFactor = 0xd6e8feb86659fd93ULL;
    const uint64_t sum = (endpoint.word_ ^ seed) * kFactor;
    return (sum ^ sum >> 32) * kFactor;
  }
  static uint32_t spread(Address address) {
    return static_cast<uint32_t>((address * 0x9e3779b97f4a7c15ULL) >> 32);
  }
};

struct Ipv6Family {
  struct Address {  // as it lies in memory
    uint64_t words[2];
    bool operator==(const Address& other) const {
      return words[0] == other.words[0] && words[1] == other.words[1];
    }
  };

  class Endpoint {
   public:
    Endpoint() = default;
    Endpoint(const Address& address, uint32_t port, uint8_t proto) : rest_(port << 8 | proto) {
      std::memcpy(address_, &address, sizeof address_);
    }
    bool none() const { return rest_ == 0; }  // no protocol is 0
    Address address() const {
      Address address;
      std::memcpy(&address, address_, sizeof address);
      return address;
    }
    uint16_t port() const { return static_cast<uint16_t>(rest_ >> 8); }
    uint8_t proto() const { return static_cast<uint8_t>(rest_); }
    bool operator==(const Endpoint& other) const {
      return rest_ == other.rest_ && address() == other.address();
    }
    bool operator<(const Endpoint& other) const {
      if (rest_ != other.rest_) return rest_ < other.rest_;
      return std::memcmp(address_, other.address_, sizeof address_) < 0;
    }

   private:
    friend struct Ipv6Family;
    uint32_t address_[4];  // without gaps: both endpoints of a mapping share a cache line
    uint32_t rest_;
  };

  static constexpr uint8_t kVersion = 6;
  static constexpr size_t kAddressBytes = 16;
  static constexpr uint32_t kSourceAt = 8;
  static constexpr uint32_t kDestinationAt = 24;

  static Address load(const uint8_t* from) {
    Address address;
    std::memcpy(&address, from, sizeof address);
    return address;
  }
  static void store(uint8_t* to, const Address& address) {
    std::memcpy(to, &address, sizeof address);
  }
  static uint32_t change(const Address& before, const Address& after) {
    const auto* from = reinterpret_cast<const uint8_t*>(&before);
    const auto* to = reinterpret_cast<const uint8_t*>(&after);
    uint32_t sum = 0;
    for (size_t at = 0; at < sizeof before; at += 2) {
      sum += change16(load_be16(from + at), load_be16(to + at));
    }
    return sum;
  }
  static uint64_t hash(const Endpoint& endpoint, uint64_t seed) {
    const Address address = endpoint.address();
    const uint64_t swapped = seed << 32 | seed >> 32;
    const uint64_t mixed = fold_multiply(address.words[0] ^ seed, address.words[1] ^ swapped);
    return fold_multiply(mixed ^ kFlowSeed, endpoint.rest_ ^ ~seed);
  }
  static uint32_t spread(const Address& address) {
    return static_cast<uint32_t>(flow_mix(address.words[0] ^ flow_mix(address.words[1])) >> 32);
  }
};

}  // namespace e2
