// SPDX-License-Identifier: BSD-3-Clause
// TunnelEncap: puts frames into a Geneve tunnel to another server: Ethernet, IP, UDP and Geneve.
//
// The VNI names the edge that the packet travels on. Metadata attributes go along as options of the
// experimental class 0xffe2, bytes as they are, padded with zeros to multiples of 4; TunnelDecap
// puts them back. The UDP source port is a hash of the inner flow within 49152..65535, so that one
// flow keeps one path: of IPv6 by its flow label, where there is one (RFC 6438); fragments hash
// without ports, frames that are not IP by their MAC addresses.
// The outer packet is IPv4 or IPv6 as the addresses are, with "don't fragment" and ID 0 over IPv4.
// Outer ECN bits are 0: nothing on the way may mark congestion there, for nobody would copy it back
// (RFC 6040, compatibility mode).
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: TunnelEncapArg
// Commands: none.
// Metadata: reads the attributes of `options`, and `vni_attr` (4 bytes, network order).
// Drop reasons:
//   "no headroom"      the buffer has no room for the headers in front of the packet
//   "over MTU"         the outer IP packet would be longer than `mtu`
//   "no inner frame"   the packet is shorter than an Ethernet header
//   "no such edge"     the attribute `vni_attr` does not fit 24 bits
// Method: the headers lie ready but for lengths, source port, VNI, attributes and checksums.
// Origin: new; Geneve is RFC 8926.
#include <netinet/ether.h>

#include <algorithm>

#include "host/flow_hash.h"
#include "host/module.h"
#include "modules/addresses.h"
#include "modules/geneve.h"

namespace e2 {
namespace {

constexpr uint64_t kDontFragment = 0x4000;
constexpr uint64_t kVersionAndTos = 0x4500;
constexpr uint64_t kDefaultTtl = 64;
constexpr uint64_t kDefaultMtu = 9000;
constexpr uint64_t kMaxMtu = 0xffff;
constexpr uint32_t kFirstPrivatePort = 0xc000;
constexpr size_t kMacText = 17;
constexpr uint32_t kMaxHeaderBytes = 128;        // what every host has as headroom
constexpr uint8_t kNoValue[kMaxAttrBytes] = {};  // of an attribute without a place

Status read_mac(const Args& args, const char* key, uint8_t* to) {
  const std::string& text = args[key].as_string();
  ether_addr mac;
  if (text.size() != kMacText || ether_aton_r(text.c_str(), &mac) == nullptr) {
    return Status::invalid("'" + std::string(key) + "' '" + text +
                           "' must be a MAC address like 02:00:00:00:00:01");
  }
  std::memcpy(to, mac.ether_addr_octet, sizeof mac.ether_addr_octet);
  return {};
}

// Two words of a one's complement sum, as they lie in memory.
inline uint64_t ones_words(uint64_t big_endian) {
  return (big_endian >> 32) + (big_endian & 0xffffffff);
}

// Up to 4 bytes as the low ones of a word.
inline uint32_t load_upto4(const uint8_t* from, uint32_t size) {
  uint32_t word = 0;
  if (size == 4) {
    std::memcpy(&word, from, 4);
  } else if (size == 1) {
    word = from[0];
  } else if (size == 2) {
    std::memcpy(&word, from, 2);
  } else {
    std::memcpy(&word, from, 3);
  }
  return word;
}

// The inner packet's DSCP in the place it has in a TOS or traffic class; 0 where it is not IP.
inline uint32_t dscp_of(const uint8_t* packet, uint32_t len) {
  Headers h = find_ip(packet, len);
  if (h.ip_version == 0) return 0;
  const uint8_t* ip = packet + h.l3_off;
  return (h.ip_version == 4 ? ip[1] : load_be16(ip) >> 4) & 0xfcu;
}

class TunnelEncap final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    no_headroom_ = add_drop_reason("no headroom");
    over_mtu_ = add_drop_reason("over MTU");
    no_frame_ = add_drop_reason("no inner frame");
    no_edge_ = add_drop_reason("no such edge");
    Status status = read_mac(args, "dst_mac", plan_.head);
    if (status.ok()) status = read_mac(args, "src_mac", plan_.head + 6);
    if (status.ok()) status = read_addresses(args);
    if (status.ok()) status = read_tunnel_options(args["options"].as_list(), options_);
    if (status.ok()) status = read_limits(args);
    if (status.ok()) status = read_vni(args);
    if (!status.ok()) return status;
    for (const TunnelOption& option : options_) add_attr(option.attr, option.size, Access::kRead);
    if (vni_by_attr_) vni_attr_ = add_attr(args["vni_attr"].as_string(), 4, Access::kRead);
    plan_.copy_dscp = args["copy_dscp"].as_bool();
    plan_.checksum = !args["zero_checksum"].as_bool();
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    // A copy: through `this`, every store to a packet would make the compiler look again.
    const Plan plan = plan_;
    Option options[kMaxTunnelOptions];
    const size_t count = options_.size();
    bool words = true;  // all attributes have a place and 4 bytes, as most have
    for (size_t i = 0; i < count; ++i) {
      const TunnelOption& option = options_[i];
      words = words && option.size == 4 && attr_offset(i) != kNoOffset;
      const uint32_t critical = option.critical ? kCriticalOption << 8 : 0;
      options[i] = {attr_offset(i), option.size, option.offset,
                    __builtin_bswap32(option.head | critical)};
    }
    const int vni = vni_by_attr_ ? attr_offset(vni_attr_) : kNoOffset;
    if (ipv6_) {
      emit_each(ctx, batch, [&, this](Packet& packet) {
        return encapsulate<true>(packet, plan, options, count, words, vni);
      });
    } else {
      emit_each(ctx, batch, [&, this](Packet& packet) {
        return encapsulate<false>(packet, plan, options, count, words, vni);
      });
    }
  }

  std::string description() const override { return description_; }

 private:
  // What is the same in all packets.
  struct Plan {
    uint8_t head[16] = {};       // MAC addresses, destination first; then overwritten
    uint8_t addresses[32] = {};  // IP, source first
    uint32_t header_bytes = 0;
    uint32_t mtu = 0;
    uint64_t ttl = 0;
    uint64_t ip_words = 0;  // the sum of `addresses`
    uint32_t ip_sum = 0;    // of the IPv4 header without length and TOS
    uint64_t ip_start = 0;  // 8 bytes from the end of the source MAC address on, without these
    uint64_t geneve = 0;    // with the VNI, where it is an argument
    bool copy_dscp = false;
    bool checksum = false;
  };
  struct Option {
    int place;  // of the attribute
    uint32_t size;
    uint32_t offset;
    uint32_t head;  // as it lies in memory
  };

  // Every store but those of addresses and long attributes is 8 bytes that nothing overwrites in
  // part: whoever reads these headers next finds each field whole in one store.
  template <bool kIpv6>
  [[gnu::always_inline]] Gate encapsulate(Packet& packet, const Plan& plan, const Option* options,
                                          size_t count, bool words, int vni_place) const {
    constexpr uint32_t kIpBytes = kIpv6 ? kIpv6Bytes : kIpv4Bytes;
    const uint8_t* const inner = packet.data();
    const uint32_t len = packet.len();
    const uint32_t ip_len = len + plan.header_bytes - kEthernetBytes;
    if (len < kInnerEthernetBytes) return drop_gate(no_frame_);
    if (ip_len > plan.mtu) return drop_gate(over_mtu_);
    if (packet.headroom() < plan.header_bytes) return drop_gate(no_headroom_);
    uint64_t geneve = plan.geneve;
    if (vni_place != kNoOffset) {
      const uint32_t vni = __builtin_bswap32(read_attr_as<uint32_t>(packet, vni_place));
      if (vni > kMaxVni) return drop_gate(no_edge_);
      geneve |= vni << 8;
    }
    const uint64_t sport = (frame_hash(inner, len) & 0xffff) | kFirstPrivatePort;
    const uint64_t tos = plan.copy_dscp ? dscp_of(inner, len) : 0;

    uint8_t* const to = packet.prepend(plan.header_bytes);
    uint8_t* const udp = to + kEthernetBytes + kIpBytes;
    std::memcpy(to, plan.head, sizeof plan.head);
    if (kIpv6) {
      const uint64_t payload = ip_len - kIpv6Bytes;
      store_be64(to + 14,
                 uint64_t{6} << 60 | tos << 52 | payload << 16 | kProtoUdp << 8 | plan.ttl);
      std::memcpy(to + 22, plan.addresses, 32);
    } else {
      const uint64_t ttl_and_proto = plan.ttl << 8 | kProtoUdp;
      const uint16_t checksum = checksum_fold(plan.ip_sum + static_cast<uint32_t>(tos) + ip_len);
      store_be64(to + 10, plan.ip_start | tos << 16 | ip_len);
      store_be64(to + 18, kDontFragment << 32 | ttl_and_proto << 16 | checksum);
      std::memcpy(to + 26, plan.addresses, 8);
    }
    store_be64(udp + kUdpBytes, geneve);
    const uint64_t udp_len = ip_len - kIpBytes;
    uint64_t udp_word = sport << 48 | uint64_t{kGenevePort} << 32 | udp_len << 16;
    uint64_t sum = plan.ip_words;
    uint8_t* const first = udp + kUdpBytes + kGeneveBytes;
    if (words) {
      for (size_t i = 0; i < count; ++i) {
        uint32_t value;
        std::memcpy(&value, packet.metadata(options[i].place), sizeof value);
        sum += put_word(first + i * 8, options[i].head, value);
      }
    } else {
      for (size_t i = 0; i < count; ++i) sum += put_option(packet, first, options[i]);
    }
    if (plan.checksum) {
      const uint64_t pseudo = kProtoUdp + udp_len;
      sum += ones_words(__builtin_bswap64(pseudo)) + ones_words(__builtin_bswap64(udp_word)) +
             ones_words(__builtin_bswap64(geneve));
      const auto value = static_cast<uint16_t>(~ones_fold(sum + ones_of_long(inner, len)));
      udp_word |= value == 0 ? 0xffff : value;
    }
    store_be64(udp, udp_word);
    return 0;
  }

  // Both write one option and return its part of the checksum.
  static uint64_t put_word(uint8_t* to, uint32_t head, uint32_t value) {
    const uint64_t word = static_cast<uint64_t>(value) << 32 | head;
    std::memcpy(to, &word, sizeof word);
    return static_cast<uint64_t>(head) + value;
  }
  static uint64_t put_option(const Packet& packet, uint8_t* first, const Option& option) {
    uint8_t* const to = first + option.offset;
    const uint8_t* const from =
        option.place == kNoOffset ? kNoValue : packet.metadata(option.place);
    if (option.size <= 4) {
      return put_word(to, option.head, load_upto4(from, option.size));
    }
    std::memcpy(to, &option.head, kOptionHeadBytes);
    std::memset(to + (option.size + kOptionHeadBytes - 1) / 4 * size_t{4}, 0, 4);  // the padding
    copy_small(to + kOptionHeadBytes, from, option.size);
    return ones_add_bytes(option.head, from, option.size);
  }

  Status read_addresses(const Args& args) {
    const std::string& src_text = args["src_ip"].as_string();
    const std::string& dst_text = args["dst_ip"].as_string();
    const std::string src = read_address(src_text);
    const std::string dst = read_address(dst_text);
    if (src.empty()) return bad_address("src_ip", src_text, "must be an IPv4 or IPv6 address");
    if (dst.empty()) return bad_address("dst_ip", dst_text, "must be an IPv4 or IPv6 address");
    if (src.size() != dst.size()) {
      return bad_address("dst_ip", dst_text, "must be of the same family as 'src_ip' " + src_text);
    }
    const bool loopback = dst.size() == 4 ? dst[0] == 127 : dst == read_address("::1");
    if (src == dst || loopback) {
      return bad_address("dst_ip", dst_text,
                         "is this server itself: a tunnel must lead to another one");
    }
    const std::string none(src.size(), '\0');
    if (src == none) return bad_address("src_ip", src_text, "must be an address of this server");
    if (dst == none) return bad_address("dst_ip", dst_text, "must be the address of a server");
    if (std::equal(plan_.head, plan_.head + 6, plan_.head + 6)) {
      return Status::invalid("'dst_mac' is also 'src_mac': a tunnel must lead to another server");
    }
    ipv6_ = src.size() == 16;
    store_be16(plan_.head + 12, ipv6_ ? kEtherIpv6 : kEtherIpv4);
    std::memcpy(plan_.addresses, src.data(), src.size());
    std::memcpy(plan_.addresses + src.size(), dst.data(), dst.size());
    plan_.ip_words = ones_add_bytes(0, plan_.addresses, 2 * src.size());
    description_ = "to " + dst_text;
    return {};
  }

  static Status bad_address(const char* key, const std::string& text, const std::string& what) {
    return Status::invalid("'" + std::string(key) + "' '" + text + "' " + what);
  }

  Status read_limits(const Args& args) {
    const uint64_t ttl = args["ttl"].as_uint();
    const uint64_t mtu = args["mtu"].as_uint();
    if (ttl > 0xff) return Status::invalid("'ttl' must be within 1..255");
    plan_.ttl = ttl == 0 ? kDefaultTtl : ttl;
    const uint32_t options = option_bytes(options_);
    plan_.header_bytes =
        kEthernetBytes + (ipv6_ ? kIpv6Bytes : kIpv4Bytes) + kUdpBytes + kGeneveBytes + options;
    if (plan_.header_bytes > kMaxHeaderBytes) {
      return Status::invalid("'options' make the headers " + std::to_string(plan_.header_bytes) +
                             " bytes long; packets have room for " +
                             std::to_string(kMaxHeaderBytes));
    }
    // The Ethernet header that is not in the outer IP packet, the inner one is.
    if (mtu != 0 && (mtu < plan_.header_bytes || mtu > kMaxMtu)) {
      return Status::invalid("'mtu' must be within " + std::to_string(plan_.header_bytes) +
                             "..65535 with these headers");
    }
    plan_.mtu = static_cast<uint32_t>(mtu == 0 ? kDefaultMtu : mtu);
    plan_.ip_start = load_be64(plan_.head + 8) << 16 | kVersionAndTos << 16;
    plan_.ip_sum = kVersionAndTos + kDontFragment + (static_cast<uint32_t>(plan_.ttl) << 8) +
                   kProtoUdp + ones_fold(plan_.ip_words);
    return {};
  }

  Status read_vni(const Args& args) {
    const std::string& attr = args["vni_attr"].as_string();
    const uint64_t vni = args["vni"].as_uint();
    if (args.has("vni") != attr.empty()) {
      return Status::invalid("give either 'vni', the id of the edge, or 'vni_attr'");
    }
    if (vni > kMaxVni) {
      return Status::invalid("'vni' " + std::to_string(vni) + " must be within 0..16777215");
    }
    vni_by_attr_ = !attr.empty();
    const bool critical = std::any_of(options_.begin(), options_.end(),
                                      [](const TunnelOption& option) { return option.critical; });
    const uint32_t first =
        option_bytes(options_) / 4 << 24 | (critical ? kCriticalFlag : 0) | kEtherBridging;
    plan_.geneve = static_cast<uint64_t>(first) << 32 | vni << 8;
    return {};
  }

  Plan plan_;
  std::vector<TunnelOption> options_;
  std::string description_;
  bool ipv6_ = false;
  bool vni_by_attr_ = false;
  size_t vni_attr_ = 0;
  uint32_t no_headroom_ = 0;
  uint32_t over_mtu_ = 0;
  uint32_t no_frame_ = 0;
  uint32_t no_edge_ = 0;
};

const ModuleClass kClass = {"TunnelEncap",
                            "tunnel_encap",
                            "puts frames into a Geneve tunnel to another server",
                            "TunnelEncapArg",
                            1,
                            1,
                            {},
                            make_module<TunnelEncap>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
