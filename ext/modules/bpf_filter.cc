// SPDX-License-Identifier: BSD-3-Clause
// BpfFilter's evaluator; the compiler is in bpf_compiler.cc.
#include "modules/bpf_filter.h"

#include <algorithm>

#include "modules/bpf_text.h"

namespace e2 {
namespace {

using Direction = BpfFilter::Direction;
using Kind = BpfFilter::Kind;
using Node = BpfFilter::Node;

constexpr uint32_t kArpBytes = 28;
constexpr uint32_t kArpSender = 14;
constexpr uint32_t kArpTarget = 24;
constexpr uint32_t kMacsBytes = 12;

inline bool either_way(Direction direction, bool source, bool destination) {
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

// Calls test(i) for each packet of the mask; returns those where it is true.
template <typename Test>
inline PacketMask those(PacketMask packets, Test test) {
  PacketMask hits = 0;
  for (PacketMask left = packets; left != 0; left &= left - 1) {
    const auto i = static_cast<uint32_t>(__builtin_ctz(left));
    hits |= static_cast<PacketMask>(test(i)) << i;
  }
  return hits;
}

PacketMask test_ports(const Node& node, const Frames& frames, PacketMask packets) {
  const Node own = node;
  const auto inside = [&own](uint32_t port) { return port - own.low <= own.high - own.low; };
  const auto test_in = [&](auto either) {
    return those(packets, [&](uint32_t i) {
      Headers h = frames.headers(i);
      const bool ports =
          h.ip_proto == kProtoTcp || h.ip_proto == kProtoUdp || h.ip_proto == kProtoSctp;
      return h.l4_off != 0 && ports && (own.proto == 0 || own.proto == h.ip_proto) &&
             either(inside(h.sport), inside(h.dport));
    });
  };
  switch (own.direction) {
    case Direction::kSource:
      return test_in([](bool source, bool) { return source; });
    case Direction::kDestination:
      return test_in([](bool, bool destination) { return destination; });
    default:
      return test_in([&own](bool source, bool destination) {
        return either_way(own.direction, source, destination);
      });
  }
}

PacketMask test(const Node& node, const Frames& frames, PacketMask packets) {
  const auto inside = [&node](uint32_t value) { return value >= node.low && value <= node.high; };
  switch (node.kind) {
    case Kind::kAll:
      return packets;
    case Kind::kEtherType:
      return those(packets, [&](uint32_t i) {
        Headers h = frames.headers(i);
        return h.l2_len != 0 && inside(h.ether_type);
      });
    case Kind::kIpProto:
      return those(packets, [&](uint32_t i) {
        Headers h = frames.headers(i);
        return h.ip_version != 0 && h.l3_len != 0 && inside(h.ip_proto) &&
               (node.version == 0 || node.version == h.ip_version);
      });
    case Kind::kVlan:
      return those(packets, [&](uint32_t i) {
        Headers h = frames.headers(i);
        return h.has_vlan && inside(h.vlan_tci & BpfFilter::kMaxVid);
      });
    case Kind::kMac:
      return those(packets, [&](uint32_t i) {
        const uint8_t* data = frames.data(i);
        return frames.len(i) >= kMacsBytes &&
               either_way(node.direction, same_bits(node, data + 6, 6), same_bits(node, data, 6));
      });
    case Kind::kAddress:
      return those(packets, [&](uint32_t i) {
        return test_address(node, frames.data(i), frames.len(i), frames.headers(i));
      });
    case Kind::kPort:
      return test_ports(node, frames, packets);
    case Kind::kLength:
      return those(packets, [&](uint32_t i) { return inside(frames.len(i)); });
  }
  return 0;
}

}  // namespace

// One test at a time over all packets that have reached it: jumps lead forward only, so that a
// test's packets are complete when its turn comes.
PacketMask BpfFilter::match(const Frames& frames, PacketMask packets) const {
  PacketMask at[kMaxNodes];
  const size_t count = nodes_.size();
  std::fill_n(at, count, 0);
  at[0] = packets;
  PacketMask accepted = 0;
  const auto send = [&](uint32_t to, PacketMask which) {
    if (to < count) {
      at[to] |= which;
    } else if (to == kAccept) {
      accepted |= which;
    }
  };
  for (size_t n = 0; n < count; ++n) {
    if (at[n] == 0) continue;
    const PacketMask hits = test(nodes_[n], frames, at[n]);
    send(nodes_[n].on_true, hits);
    send(nodes_[n].on_false, at[n] & ~hits);
  }
  return accepted;
}

}  // namespace e2
