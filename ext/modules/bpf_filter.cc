// SPDX-License-Identifier: BSD-3-Clause
// BpfFilter's evaluator; the compiler is in bpf_compiler.cc.
#include "modules/bpf_filter.h"

#include "modules/bpf_text.h"

namespace e2 {
namespace {

using Direction = BpfFilter::Direction;
using Node = BpfFilter::Node;

constexpr uint32_t kArpBytes = 28;
constexpr uint32_t kArpSender = 14;
constexpr uint32_t kArpTarget = 24;
constexpr uint32_t kMacsBytes = 12;

bool either_way(Direction direction, bool source, bool destination) {
  switch (direction) {
    case Direction::kSource:
      return source;
    case Direction::kDestination:
      return destination;
    case Direction::kBoth:
      return source && destination;
    default:
      return source || destination;
  }
}

bool same_bits(const Node& node, const uint8_t* bytes, uint32_t count) {
  uint32_t difference = 0;
  for (uint32_t i = 0; i < count; ++i) difference |= (bytes[i] & node.mask[i]) ^ node.address[i];
  return difference == 0;
}

bool test_address(const Node& node, const uint8_t* data, uint32_t len, const Headers& headers) {
  const uint8_t* source = nullptr;
  const uint8_t* destination = nullptr;
  if (node.version == 6) {
    if (headers.ip_version != 6) return false;
    source = data + headers.l3_off + 8;
    destination = source + 16;
    return either_way(node.direction, same_bits(node, source, 16),
                      same_bits(node, destination, 16));
  }
  if (node.ether_type != 0 && node.ether_type != headers.ether_type) return false;
  if (headers.ip_version == 4) {
    source = data + headers.l3_off + 12;
    destination = source + 4;
  } else {
    const bool arp = headers.ether_type == kEtherArp || headers.ether_type == kEtherRarp;
    if (!arp || len < headers.l2_len + kArpBytes) return false;
    source = data + headers.l2_len + kArpSender;
    destination = data + headers.l2_len + kArpTarget;
  }
  return either_way(node.direction, same_bits(node, source, 4), same_bits(node, destination, 4));
}

}  // namespace

bool BpfFilter::test(const Node& node, const uint8_t* data, uint32_t len, const Headers& headers) {
  const auto inside = [&node](uint32_t value) { return value >= node.low && value <= node.high; };
  switch (node.kind) {
    case Kind::kAll:
      return true;
    case Kind::kEtherType:
      return headers.l2_len != 0 && inside(headers.ether_type);
    case Kind::kIpProto:
      return headers.ip_version != 0 && headers.l3_len != 0 && inside(headers.ip_proto) &&
             (node.version == 0 || node.version == headers.ip_version);
    case Kind::kVlan:
      return headers.has_vlan && inside(headers.vlan_tci & BpfFilter::kMaxVid);
    case Kind::kMac:
      return len >= kMacsBytes &&
             either_way(node.direction, same_bits(node, data + 6, 6), same_bits(node, data, 6));
    case Kind::kAddress:
      return test_address(node, data, len, headers);
    case Kind::kPort: {
      const uint8_t proto = headers.ip_proto;
      const bool ports = proto == kProtoTcp || proto == kProtoUdp || proto == kProtoSctp;
      return headers.l4_off != 0 && ports && (node.proto == 0 || node.proto == proto) &&
             either_way(node.direction, inside(headers.sport), inside(headers.dport));
    }
    case Kind::kLength:
      return inside(len);
  }
  return false;
}

}  // namespace e2
