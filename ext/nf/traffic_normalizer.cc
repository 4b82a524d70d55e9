// SPDX-License-Identifier: BSD-3-Clause
// TrafficNormalizer: lets only packets through that every receiver reads in the same way.
//
// Frames that are not IPv4 or IPv6 pass unchanged. The drop reason is the first that applies.
//
// Family: network functions
// Gates: in 1, out 1.
// Arguments: TrafficNormalizerArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "truncated header"      the frame ends inside its Ethernet, VLAN, IP or L4 header
//   "bad IP header"         wrong version, IHL below 5 or past the end, IPv6 extension headers that
//                           are cut or more than 8
//   "bad length"            an IP length below the header's or past the frame's end (so also
//                           captures that were cut short); a UDP length below 8 or past IP's; a TCP
//                           data offset below 5 or past the end; a fragment that is empty, not a
//                           multiple of 8 though more follow, past 65535, or past the last one
//   "bad TCP flags"         none of SYN ACK FIN RST; SYN with FIN or RST; FIN with RST; FIN without
//                           ACK
//   "bad IP checksum"       without repair
//   "bad L4 checksum"       without repair; TCP, UDP, ICMP, ICMPv6 of unfragmented packets
//   "overlapping fragment"  its bytes were claimed by an earlier fragment; the earlier one stays
//   "fragment table full"   more datagrams or gaps at a time than the tracker holds
// Limits: all fragments of a datagram must come through one worker, as they do when packets are
// spread by their addresses.
// Method: a tracker per worker holds 1024 incomplete datagrams (in sets of 4) with 8 separate
// ranges each, for 30 seconds.
// Origin: original to this project, after "Network Intrusion Detection: Evasion, Traffic
// Normalization, and End-to-End Protocol Semantics" (USENIX Security 2001) and RFC 5722.
#include "host/flow_hash.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kSets = 256;
constexpr uint32_t kWays = 4;
constexpr uint32_t kMaxRanges = 8;
constexpr uint64_t kExpiryNs = 30'000'000'000ULL;
constexpr uint32_t kMaxDatagram = 0xffff;
constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kAck = 16;
constexpr Gate kGood = 0;

enum class Verdict { kOk, kBadLength, kOverlap, kFull };

// One fragment's place in its datagram.
struct Piece {
  FiveTuple addresses;  // without ports; IPv6 also without protocol
  uint32_t id;
  uint32_t begin;
  uint32_t end;
  bool last;
};

// The ranges of incomplete datagrams that fragments have filled. One worker's, so without locks.
class FragmentTracker {
 public:
  Verdict accept(const Piece& piece, uint64_t now_ns) {
    bool odd = (piece.end - piece.begin) % 8 != 0;
    if (piece.begin >= piece.end || piece.end > kMaxDatagram || (odd && !piece.last)) {
      return Verdict::kBadLength;
    }
    Datagram* datagram = find(piece, now_ns);
    if (datagram == nullptr) return Verdict::kFull;
    Verdict verdict = datagram->check(piece);
    if (verdict != Verdict::kOk) return verdict;
    if (!datagram->insert(piece)) return Verdict::kFull;
    // A complete datagram is forgotten, so that its identification may be used again.
    if (datagram->complete()) datagram->used = false;
    return Verdict::kOk;
  }

 private:
  struct Range {
    uint16_t begin;
    uint16_t end;
  };

  struct Datagram {
    bool used = false;
    uint8_t ranges_used = 0;
    uint16_t total = 0;  // known once the last fragment came
    uint16_t reach = 0;  // the largest end so far
    uint32_t id = 0;
    uint64_t since_ns = 0;
    FiveTuple addresses = {};
    Range ranges[kMaxRanges] = {};

    Verdict check(const Piece& piece) const {
      if (total != 0 && (piece.end > total || (piece.last && piece.end != total))) {
        return Verdict::kBadLength;
      }
      if (piece.last && piece.end < reach) return Verdict::kBadLength;
      for (uint32_t i = 0; i < ranges_used; i++) {
        if (piece.begin < ranges[i].end && piece.end > ranges[i].begin) return Verdict::kOverlap;
      }
      return Verdict::kOk;
    }

    // Joins the piece with its neighbours; false where it has none and all ranges are in use.
    bool insert(const Piece& piece) {
      uint32_t begin = piece.begin;
      uint32_t end = piece.end;
      for (uint32_t i = 0; i < ranges_used;) {
        if (ranges[i].end != begin && ranges[i].begin != end) {
          i++;
          continue;
        }
        if (ranges[i].end == begin) begin = ranges[i].begin;
        if (ranges[i].begin == end) end = ranges[i].end;
        ranges[i] = ranges[--ranges_used];
      }
      if (ranges_used == kMaxRanges) return false;
      ranges[ranges_used++] = {static_cast<uint16_t>(begin), static_cast<uint16_t>(end)};
      if (piece.end > reach) reach = static_cast<uint16_t>(piece.end);
      if (piece.last) total = static_cast<uint16_t>(piece.end);
      return true;
    }

    bool complete() const {
      return total != 0 && ranges_used == 1 && ranges[0].begin == 0 && ranges[0].end == total;
    }
  };

  Datagram* find(const Piece& piece, uint64_t now_ns) {
    uint64_t hash = flow_hash(piece.addresses) ^ piece.id * 0x9e3779b97f4a7c15ULL;
    Datagram* set = datagrams_[(hash >> 32 ^ hash) & (kSets - 1)];
    Datagram* free = nullptr;
    for (uint32_t way = 0; way < kWays; way++) {
      Datagram& datagram = set[way];
      bool old = now_ns - datagram.since_ns > kExpiryNs;
      if (!datagram.used || old) {
        free = &datagram;
      } else if (datagram.id == piece.id && datagram.addresses == piece.addresses) {
        return &datagram;
      }
    }
    if (free == nullptr) return nullptr;
    *free = Datagram();
    free->used = true;
    free->id = piece.id;
    free->since_ns = now_ns;
    free->addresses = piece.addresses;
    return free;
  }

  Datagram datagrams_[kSets][kWays];
};

// Where an IPv6 packet that parse_headers found fragmented has its Fragment header.
uint32_t fragment_header_off(const uint8_t* data, const Headers& h) {
  uint8_t proto = data[h.l3_off + 6];
  uint32_t off = h.l3_off + kIpv6Bytes;
  constexpr uint8_t kAuthentication = 51;
  while (proto != kProtoFragment) {
    const uint8_t* header = data + off;
    off += proto == kAuthentication ? (header[1] + 2u) * 4 : (header[1] + 1u) * 8;
    proto = header[0];
  }
  return off;
}

Piece read_piece(const uint8_t* data, const Headers& h) {
  Piece piece = {};
  flow_key(data, h, piece.addresses);
  piece.addresses.sport = 0;
  piece.addresses.dport = 0;
  uint32_t ip_end = static_cast<uint32_t>(h.l3_off) + h.ip_total_len;
  uint32_t start = static_cast<uint32_t>(h.l3_off) + h.l3_len;
  if (h.ip_version == 4) {
    piece.id = load_be16(data + h.l3_off + 4);
    piece.begin = (load_be16(data + h.l3_off + 6) & 0x1fffu) * 8;
  } else {
    uint32_t header = fragment_header_off(data, h);
    piece.addresses.proto = 0;
    piece.id = load_be32(data + header + 4);
    piece.begin = load_be16(data + header + 2) & 0xfff8u;
    start = header + 8;
  }
  piece.end = piece.begin + (ip_end - start);
  piece.last = !h.more_fragments;
  return piece;
}

bool impossible(uint8_t flags) {
  if ((flags & (kSyn | kAck | kFin | kRst)) == 0) return true;
  if ((flags & kSyn) != 0 && (flags & (kFin | kRst)) != 0) return true;
  return (flags & kFin) != 0 && ((flags & kRst) != 0 || (flags & kAck) == 0);
}

class TrafficNormalizer final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    repair_ = args["repair"].as_bool();
    truncated_ = drop_gate(add_drop_reason("truncated header"));
    bad_header_ = drop_gate(add_drop_reason("bad IP header"));
    bad_length_ = drop_gate(add_drop_reason("bad length"));
    bad_flags_ = drop_gate(add_drop_reason("bad TCP flags"));
    bad_ip_checksum_ = drop_gate(add_drop_reason("bad IP checksum"));
    bad_l4_checksum_ = drop_gate(add_drop_reason("bad L4 checksum"));
    overlap_ = drop_gate(add_drop_reason("overlapping fragment"));
    full_ = drop_gate(add_drop_reason("fragment table full"));
    trackers_ = std::make_unique<FragmentTracker[]>(kMaxWorkers);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Headers headers[kMaxBatch];
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; i++) {
      headers[i] = parse_headers(batch[i]->data(), batch[i]->len());
    }
    for (uint32_t i = 0; i < batch.size; i++) {
      const Headers& h = headers[i];
      gates[i] = check_ip(batch[i]->len(), h);
      if (gates[i] != kGood || h.ip_version == 0) continue;
      gates[i] = check_l4(batch[i]->data(), h);
      if (gates[i] == kGood) gates[i] = check_sums(*batch[i], h);
      if (gates[i] == kGood && (h.fragment || h.more_fragments)) {
        Piece piece = read_piece(batch[i]->data(), h);
        gates[i] = to_gate(trackers_[ctx.wid].accept(piece, ctx.now_ns));
      }
    }
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override { return repair_ ? "repairs" : "drops"; }

 private:
  Gate check_ip(uint32_t len, const Headers& h) const {
    if (h.l2_len == 0) return truncated_;
    if (h.ether_type != kEtherIpv4 && h.ether_type != kEtherIpv6) return kGood;
    uint32_t least = h.ether_type == kEtherIpv4 ? 20 : 40;
    if (len - h.l2_len < least) return truncated_;
    if (h.ip_version == 0) return bad_header_;
    if (h.l3_off + h.ip_total_len > len) return bad_length_;
    if (h.l3_len == 0) return bad_header_;
    return h.ip_total_len < h.l3_len ? bad_length_ : kGood;
  }

  Gate check_l4(const uint8_t* data, const Headers& h) const {
    if (h.fragment) return kGood;
    if (h.l4_off == 0) return h.ip_proto == kProtoNoNext ? kGood : truncated_;
    if (h.payload_off == 0) return bad_length_;
    if (h.ip_proto == kProtoTcp && impossible(h.tcp_flags)) return bad_flags_;
    if (h.ip_proto == kProtoUdp) {
      uint32_t claimed = load_be16(data + h.l4_off + 4);
      uint32_t room = h.l3_off + h.ip_total_len - h.l4_off;
      // The length is that of the whole datagram, of which this may be the first piece only.
      if (claimed < 8 || (claimed > room && !h.more_fragments)) return bad_length_;
    }
    return kGood;
  }

  Gate check_sums(Packet& packet, const Headers& h) const {
    uint8_t* ip = packet.data() + h.l3_off;
    if (h.ip_version == 4 && checksum_fold(checksum_add(ip, h.l3_len)) != 0) {
      if (!repair_) return bad_ip_checksum_;
      store_be16(ip + 10, ipv4_checksum(ip, h.l3_len));
    }
    if (!l4_checksum_ok(packet.data(), h)) {
      if (!repair_) return bad_l4_checksum_;
      store_be16(packet.data() + l4_checksum_off(h), l4_checksum(packet.data(), h));
    }
    uint32_t end = static_cast<uint32_t>(h.l3_off) + h.ip_total_len;
    if (repair_ && packet.len() > end) packet.trim(packet.len() - end);
    return kGood;
  }

  Gate to_gate(Verdict verdict) const {
    switch (verdict) {
      case Verdict::kBadLength:
        return bad_length_;
      case Verdict::kOverlap:
        return overlap_;
      case Verdict::kFull:
        return full_;
      default:
        return kGood;
    }
  }

  std::unique_ptr<FragmentTracker[]> trackers_;
  bool repair_ = false;
  Gate truncated_ = 0;
  Gate bad_header_ = 0;
  Gate bad_length_ = 0;
  Gate bad_flags_ = 0;
  Gate bad_ip_checksum_ = 0;
  Gate bad_l4_checksum_ = 0;
  Gate overlap_ = 0;
  Gate full_ = 0;
};

const ModuleClass kClass = {"TrafficNormalizer",
                            "traffic_normalizer",
                            "repairs or drops packets that receivers could read differently",
                            "TrafficNormalizerArg",
                            1,
                            1,
                            {},
                            make_module<TrafficNormalizer>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
