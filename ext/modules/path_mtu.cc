// SPDX-License-Identifier: BSD-3-Clause
// PathMtu: lets no IP packet pass that is longer than the path behind it takes, and tells senders.
//
// What fits leaves by gate 0. IPv4 packets that are too long and may be fragmented leave by gate 0
// in pieces that fit (RFC 791), with the metadata of the whole: options are in later pieces if
// their copied bit says so, and fragments may be cut again. Any other that is too long becomes an
// ICMP error to its sender, which leaves by gate 1: "fragmentation needed" with the MTU (RFC 1191)
// and up to 548 bytes of the packet (RFC 1812), or IPv6's "packet too big" (RFC 8201) with up to
// 1232 bytes. The error goes to the MAC address that the frame came from, behind the VLAN tags that
// it came with, and keeps the packet's metadata. The lengths are those that IP headers claim.
//
// The MSS option of TCP SYNs is lowered so that segments fit in both directions of a connection
// whose both directions pass: to `mtu` - 40, or `mtu6` - 60.
//
// The source address of errors is `address` or `address6`. Without one it is the destination of the
// packet that was too long, as with other boxes that have no address: RFC 1812 (4.3.2.4) and RFC
// 4443 (2.2) ask for one of the router's, but the destination is the only address of which it is
// certain that the sender's filters let it through. A router with addresses should give them.
//
// No error is sent about ICMP errors, IPv4 fragments other than the first, and packets with a
// multicast, broadcast, unspecified, loopback or reserved address (RFC 1122, RFC 1812, RFC 4443).
// RFC 4443 would allow errors about multicast, but the module has no MAC address to send them from.
// Frames that are not IP pass unchanged, ARP among them; so do IPv6's neighbour solicitations.
//
// Family: headers
// Gates: in 1, out 2. Gate 0 for packets that fit, gate 1 for ICMP errors back to their senders.
// Arguments: PathMtuArg
// Commands: none.
// Metadata: none of its own.
// Drop reasons:
//   "over MTU"          too long, and no error may be sent about it
//   "rate limit"        too long, and `errors_per_second` errors were sent already
//   "bad IP header"     too long, with a wrong IPv4 checksum, or not to be cut: an option's length
//                       or a fragment's place can't be right
//   "cut short"         too long, and the frame ends before the packet does
//   "packet too short"  no whole Ethernet or IP header
//   "no headroom"       the buffer has no room for the error's headers
//   "no buffer"         the pool has too few for all pieces
// Limits: of a packet in more than 33 pieces some may have left when the pool is empty.
// Method: errors stand in the buffer of their packet. So does the last piece; others are copied.
// Origin: new.
#include <algorithm>
#include <optional>

#include "host/headers.h"
#include "host/module.h"
#include "modules/addresses.h"
#include "modules/icmp_error.h"
#include "modules/ip_fragment.h"
#include "modules/meter.h"
#include "modules/tcp_mss.h"

namespace e2 {
namespace {

constexpr uint64_t kMaxMtu = 0xffff;
constexpr uint64_t kMinMtu = 68;     // RFC 791
constexpr uint64_t kMinMtu6 = 1280;  // RFC 8200
constexpr uint64_t kDefaultErrorsPerSecond = 100;
constexpr uint64_t kMaxErrorsPerSecond = 1'000'000;
constexpr uint32_t kMaxLinkHeader = kEthernetBytes + 4 * kMaxVlanTags;
constexpr Gate kFits = 0;
constexpr Gate kErrors = 1;

class PathMtu final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    over_mtu_ = add_drop_reason("over MTU");
    rate_limit_ = add_drop_reason("rate limit");
    bad_header_ = add_drop_reason("bad IP header");
    cut_short_ = add_drop_reason("cut short");
    too_short_ = add_drop_reason("packet too short");
    no_headroom_ = add_drop_reason("no headroom");
    no_buffer_ = add_drop_reason("no buffer");
    Status status = read_mtus(args);
    if (status.ok()) status = read_source(args, "address", 4, source_);
    if (status.ok()) status = read_source(args, "address6", 16, source6_);
    if (status.ok()) status = read_rate(args);
    limits_.clamp = args["clamp_mss"].as_bool(true);
    return status;
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    const Limits limits = limits_;
    bool all = true;
    for (uint32_t i = 0; i < batch.size; ++i) all &= passes_unchanged(*batch[i], limits);
    if (__builtin_expect(all, 1)) {
      emit(ctx, batch, kFits);
      return;
    }
    Outputs out;
    for (Packet* packet : batch) handle(ctx, packet, out);
    batch.clear();
    emit(ctx, out.fits, kFits);
    emit(ctx, out.errors, kErrors);
  }

  std::string description() const override {
    return std::to_string(limits_.mtu) + " bytes, IPv6 " + std::to_string(limits_.mtu6);
  }

 private:
  struct Limits {
    uint32_t mtu = 0;
    uint32_t mtu6 = 0;
    bool clamp = false;
  };
  struct Outputs {
    Batch fits;
    Batch errors;  // no more than packets came
  };

  // What most packets are: untagged, without options, short enough, and no SYN. False is no answer.
  static bool passes_unchanged(const Packet& packet, const Limits& limits) {
    constexpr uint32_t kTcpFlags = 13;
    constexpr uint32_t kFlags4 = kEthernetBytes + kIpv4Bytes + kTcpFlags;
    constexpr uint32_t kFlags6 = kEthernetBytes + kIpv6Bytes + kTcpFlags;
    const uint8_t* const data = packet.data();
    const uint32_t len = packet.len();
    if (len < kEthernetBytes + kIpv4Bytes) return false;
    const uint32_t type_and_version = load_be32(data + 12) >> 8;
    if (type_and_version == 0x080045) {
      if (load_be16(data + 16) > limits.mtu) return false;
      return data[23] != kProtoTcp || !limits.clamp ||
             (len > kFlags4 && (data[kFlags4] & kTcpSyn) == 0);
    }
    if ((type_and_version & 0xfffff0) != 0x86dd60 || len < kEthernetBytes + kIpv6Bytes ||
        load_be16(data + 18) + kIpv6Bytes > limits.mtu6) {
      return false;
    }
    return data[20] == kProtoTcp ? len > kFlags6 && (data[kFlags6] & kTcpSyn) == 0
                                 : data[20] == kProtoUdp;
  }

  void handle(Context& ctx, Packet* packet, Outputs& out) {
    uint8_t* const data = packet->data();
    Headers h = parse_headers(data, packet->len());
    if (h.ip_version == 0) {
      if (ip_is_cut(h)) return drop(ctx, packet, too_short_);
      return pass(ctx, packet, out);
    }
    const bool v4 = h.ip_version == 4;
    const uint32_t mtu = v4 ? limits_.mtu : limits_.mtu6;
    const uint8_t* const ip = data + h.l3_off;
    if (h.ip_total_len <= mtu) {
      clamp(data, h);
      return pass(ctx, packet, out);
    }
    if (v4 && checksum_fold(checksum_add(ip, h.l3_len)) != 0) return drop(ctx, packet, bad_header_);
    if (uint32_t{h.l3_off} + h.ip_total_len > packet->len()) return drop(ctx, packet, cut_short_);
    if (v4 && (load_be16(ip + 6) & kDontFragment) == 0) {
      clamp(data, h);
      return fragment(ctx, packet, h, out);
    }
    report(ctx, packet, h, out);
  }

  void clamp(uint8_t* data, const Headers& h) const {
    const bool syn = h.ip_proto == kProtoTcp && h.payload_off != 0 && (h.tcp_flags & kTcpSyn) != 0;
    if (!syn || !limits_.clamp) return;
    const uint32_t most = h.ip_version == 4 ? limits_.mtu - kIpv4Bytes : limits_.mtu6 - kIpv6Bytes;
    clamp_mss(data + h.l4_off, h.payload_off - h.l4_off,
              static_cast<uint16_t>(most - kTcpFixedBytes));
  }

  void report(Context& ctx, Packet* packet, const Headers& h, Outputs& out) {
    constexpr uint8_t kUnreachable = 3, kFragmentationNeeded = 4;
    constexpr uint8_t kPacketTooBig = 2;
    if (!may_report(packet->data(), h)) return drop(ctx, packet, over_mtu_);
    if (!bucket_.has_value() || !bucket_->take(ctx.now_ns, 1)) {
      return drop(ctx, packet, rate_limit_);
    }
    const auto source_of = [](const std::string& bytes) {
      return bytes.empty() ? nullptr : reinterpret_cast<const uint8_t*>(bytes.data());
    };
    const IcmpError error =
        h.ip_version == 4
            ? IcmpError{kUnreachable, kFragmentationNeeded, limits_.mtu, source_of(source_)}
            : IcmpError{kPacketTooBig, 0, limits_.mtu6, source_of(source6_)};
    if (!make_icmp_error(*packet, h, error)) return drop(ctx, packet, no_headroom_);
    out.errors.add(packet);
  }

  void fragment(Context& ctx, Packet* packet, const Headers& h, Outputs& out) {
    const uint8_t* const data = packet->data();
    const uint32_t l2 = h.l2_len;
    const uint8_t* const payload = data + l2 + h.l3_len;
    Ipv4Pieces pieces;
    if (!pieces.plan(data + l2, h.l3_len, h.ip_total_len, limits_.mtu)) {
      return drop(ctx, packet, bad_header_);
    }
    const uint32_t last = pieces.count() - 1;
    Batch fresh;
    for (uint32_t i = 0; i < last; ++i) {
      const uint32_t slot = i % kMaxBatch;
      if (slot == 0 && !take_buffers(ctx, fresh, last - i, l2 + limits_.mtu)) {
        return drop(ctx, packet, no_buffer_);
      }
      const uint32_t head = l2 + pieces.header_bytes(i);
      const uint32_t bytes = pieces.payload_bytes(i);
      Packet* const piece = fresh[slot];
      uint8_t* const to = piece->append(head + bytes);
      std::memcpy(to, data, l2);
      pieces.write_header(i, to + l2);
      std::memcpy(to + head, payload + pieces.start(i), bytes);
      std::memcpy(piece->metadata(0), packet->metadata(0), kMetadataBytes);
      piece->set_time_ns(packet->time_ns());
      pass(ctx, piece, out);
    }
    uint8_t link[kMaxLinkHeader];
    std::memcpy(link, data, l2);
    const uint32_t head = l2 + pieces.header_bytes(last);
    packet->trim(packet->len() - l2 - h.ip_total_len);
    uint8_t* const to = packet->adj(l2 + h.l3_len + pieces.start(last) - head);
    std::memcpy(to, link, l2);
    pieces.write_header(last, to + l2);
    packet->set_wire_len(0);
    pass(ctx, packet, out);
  }

  // Up to a batch of empty packets with room for that many bytes each; all or none.
  static bool take_buffers(Context& ctx, Batch& fresh, uint32_t count, uint32_t bytes) {
    count = std::min(count, kMaxBatch);
    fresh.clear();
    ctx.alloc(fresh, count, 0);
    if (fresh.size == count && fresh[0]->tailroom() >= bytes) return true;
    ctx.free(fresh);
    return false;
  }

  void pass(Context& ctx, Packet* packet, Outputs& out) {
    if (out.fits.full()) emit(ctx, out.fits, kFits);
    out.fits.add(packet);
  }

  Status read_mtus(const Args& args) {
    const uint64_t mtu = args["mtu"].as_uint();
    if (mtu < kMinMtu || mtu > kMaxMtu) {
      return Status::invalid("PathMtu.mtu is " + std::to_string(mtu) + "; must be " +
                             std::to_string(kMinMtu) + " to " + std::to_string(kMaxMtu));
    }
    const bool given = args.has("mtu6");
    const uint64_t mtu6 = given ? args["mtu6"].as_uint() : mtu;
    if (mtu6 < kMinMtu6 || mtu6 > kMaxMtu) {
      return Status::invalid("PathMtu.mtu6 is " + std::to_string(mtu6) +
                             (given ? "" : ", as mtu is") + "; must be " +
                             std::to_string(kMinMtu6) + " to " + std::to_string(kMaxMtu) +
                             ": IPv6 needs paths that take 1280 bytes");
    }
    limits_.mtu = static_cast<uint32_t>(mtu);
    limits_.mtu6 = static_cast<uint32_t>(mtu6);
    return {};
  }

  static Status read_source(const Args& args, const char* key, size_t bytes, std::string& source) {
    const std::string& text = args[key].as_string();
    if (text.empty()) return {};
    source = read_address(text);
    const auto* const address = reinterpret_cast<const uint8_t*>(source.data());
    const bool good =
        source.size() == bytes && (bytes == 4 ? is_ipv4_host(address) : is_ipv6_host(address));
    if (good) return {};
    return Status::invalid(
        "PathMtu." + std::string(key) + " is \"" + text + "\"; must be a host's " +
        (bytes == 4 ? "IPv4 address such as 192.0.2.1" : "IPv6 address such as 2001:db8::1"));
  }

  Status read_rate(const Args& args) {
    const uint64_t rate = args["errors_per_second"].as_uint(kDefaultErrorsPerSecond);
    if (rate > kMaxErrorsPerSecond) {
      return Status::invalid("PathMtu.errors_per_second is " + std::to_string(rate) +
                             "; must be 0 to " + std::to_string(kMaxErrorsPerSecond));
    }
    // Full from the beginning of time on.
    if (rate != 0) bucket_.emplace(rate, rate, 0);
    return {};
  }

  Limits limits_;
  std::string source_;  // bytes of the address; empty: the packet's destination
  std::string source6_;
  std::optional<TokenBucket> bucket_;  // of errors; without one there are none
  uint32_t over_mtu_ = 0;
  uint32_t rate_limit_ = 0;
  uint32_t bad_header_ = 0;
  uint32_t cut_short_ = 0;
  uint32_t too_short_ = 0;
  uint32_t no_headroom_ = 0;
  uint32_t no_buffer_ = 0;
};

const ModuleClass kClass = {"PathMtu",
                            "path_mtu",
                            "tells senders how long packets may be, and cuts those it may cut",
                            "PathMtuArg",
                            1,
                            2,
                            {},
                            make_module<PathMtu>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
