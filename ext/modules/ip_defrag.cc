// SPDX-License-Identifier: BSD-3-Clause
// IPDefrag: puts the fragments of IPv4 datagrams together again.
//
// Gate 1 gets whole datagrams as soon as their last piece is there, and all frames that are no
// fragments of IPv4, unchanged. A datagram stands in the buffer of its first fragment, with the
// Ethernet header, IP options, metadata and times of that one. Where it is too long for a buffer,
// its fragments leave by gate 0 as they came. An identical fragment that comes again is dropped; of
// a datagram whose fragments overlap in any other way, nothing is left.
//
// Family: headers
// Gates: in 1, out 2.
// Arguments: IPDefragArg
// Commands: none.
// Metadata: none.
// Drop reasons:
//   "incomplete"      a piece of it did not come within a second
//   "table full"      `num_flows` later datagrams are in pieces, too
//   "overlap"         fragments overlap
//   "bad fragment"    its length or place can't be right
//   "cut short"       the frame ends before the fragment does
//   "many fragments"  more than 16 of one datagram
// Method: a table of `num_flows` places with hash chains, allocated once; places are given back in
// the order in which the first pieces came.
// Origin: the module of this name in BESS, which knows no VLAN tags, waits for `num_flows`
// milliseconds and writes a new checksum into all IPv4 headers that pass; the code is new.
#include <algorithm>
#include <vector>

#include "host/headers.h"
#include "host/module.h"
#include "modules/ip_fragment.h"

namespace e2 {
namespace {

constexpr uint64_t kPatienceNs = 1'000'000'000;
constexpr uint32_t kMaxFlows = 1u << 20;
constexpr uint32_t kMaxPieces = 16;
constexpr uint32_t kNone = ~0u;

struct FlowKey {
  uint64_t addresses = 0;
  uint32_t id_and_proto = 0;
  bool operator==(const FlowKey& other) const {
    return addresses == other.addresses && id_and_proto == other.id_and_proto;
  }
};

struct Piece {
  Packet* packet = nullptr;
  uint32_t start = 0;  // in the datagram, behind its IP header
  uint32_t len = 0;
  uint32_t payload_off = 0;  // in the frame
};

// A datagram of which pieces are missing.
struct Flow {
  FlowKey key;
  uint64_t since_ns = 0;
  uint32_t next_in_chain = kNone;
  uint32_t older = kNone;
  uint32_t newer = kNone;
  uint32_t count = 0;
  uint32_t received = 0;
  uint32_t len = 0;  // 0 until the last fragment is there
  Piece pieces[kMaxPieces];
};

class IpDefrag final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    incomplete_ = add_drop_reason("incomplete");
    table_full_ = add_drop_reason("table full");
    overlap_ = add_drop_reason("overlap");
    bad_ = add_drop_reason("bad fragment");
    cut_ = add_drop_reason("cut short");
    many_ = add_drop_reason("many fragments");
    const uint64_t flows = args["num_flows"].as_uint();
    if (flows == 0 || flows > kMaxFlows) {
      return Status::invalid("IPDefrag.num_flows is " + std::to_string(flows) + "; must be 1 to " +
                             std::to_string(kMaxFlows));
    }
    if (args["numa"].as_int() > 0) {
      return Status::invalid("IPDefrag.numa is " + std::to_string(args["numa"].as_int()) +
                             "; must be 0 or -1: memory is not placed by node");
    }
    flows_.resize(flows);
    size_t chains = 1;
    while (chains < flows) chains *= 2;
    chains_.assign(chains, kNone);
    for (uint32_t i = 0; i < flows; ++i) flows_[i].next_in_chain = i + 1 < flows ? i + 1 : kNone;
    free_ = 0;
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    while (oldest_ != kNone && ctx.now_ns - flows_[oldest_].since_ns > kPatienceNs) {
      give_up(ctx, oldest_, incomplete_);
    }
    Batch whole;  // one packet at most for each that came
    for (Packet* packet : batch) {
      packet = take(ctx, packet);
      if (packet != nullptr) whole.add(packet);
    }
    batch.clear();
    if (!whole.empty()) emit(ctx, whole, kWholeGate);
  }

  void release(Context& ctx) override {
    while (oldest_ != kNone) {
      for (uint32_t i = 0; i < flows_[oldest_].count; ++i) {
        ctx.free(&flows_[oldest_].pieces[i].packet, 1);
      }
      remove(oldest_);
    }
  }

  std::string description() const override {
    return std::to_string(used_) + " of " + std::to_string(flows_.size()) + " datagrams";
  }

 private:
  static constexpr Gate kPiecesGate = 0;
  static constexpr Gate kWholeGate = 1;

  // The packet that is whole now, or nullptr.
  Packet* take(Context& ctx, Packet* packet) {
    uint8_t* data = packet->data();
    Headers h = parse_ip_headers(data, packet->len());
    if (h.ip_version != 4) return packet;
    const uint8_t* ip = data + h.l3_off;
    const uint16_t fragment = load_be16(ip + 6);
    if ((fragment & (kMoreFragments | kOffsetBits)) == 0) return packet;

    const bool last = (fragment & kMoreFragments) == 0;
    const uint32_t total = load_be16(ip + 2);
    Piece piece{packet, (fragment & kOffsetBits) * 8u, total - h.l3_len,
                static_cast<uint32_t>(h.l3_off) + h.l3_len};
    if (total <= h.l3_len || (!last && piece.len % 8 != 0) || piece.start + total > kMaxDatagram) {
      return lose(ctx, packet, bad_);
    }
    if (piece.payload_off + piece.len > packet->len()) return lose(ctx, packet, cut_);
    packet->trim(packet->len() - piece.payload_off - piece.len);  // Ethernet's padding

    FlowKey key;
    std::memcpy(&key.addresses, ip + 12, sizeof key.addresses);
    key.id_and_proto = static_cast<uint32_t>(load_be16(ip + 4)) << 8 | ip[9];
    const uint32_t at = find_or_make(ctx, key);
    return add(ctx, at, piece, last);
  }

  Packet* add(Context& ctx, uint32_t at, const Piece& piece, bool last) {
    Flow& flow = flows_[at];
    const uint32_t end = piece.start + piece.len;
    const uint32_t known_len = last ? end : flow.len;
    bool fits = flow.len == 0 || !last || flow.len == end;
    if (known_len != 0 && end > known_len) fits = false;
    for (uint32_t i = 0; i < flow.count; ++i) {
      const Piece& other = flow.pieces[i];
      if (other.start == piece.start && other.len == piece.len) {
        return lose(ctx, piece.packet, overlap_);
      }
      if (piece.start < other.start + other.len && other.start < end) fits = false;
      if (known_len != 0 && other.start + other.len > known_len) fits = false;
    }
    if (!fits || flow.count == kMaxPieces) {
      const uint32_t reason = fits ? many_ : overlap_;
      give_up(ctx, at, reason);
      return lose(ctx, piece.packet, reason);
    }
    flow.pieces[flow.count++] = piece;
    flow.received += piece.len;
    flow.len = known_len;
    return flow.received == flow.len ? join(ctx, at) : nullptr;
  }

  // All pieces are there and none overlap.
  Packet* join(Context& ctx, uint32_t at) {
    Piece pieces[kMaxPieces];
    const uint32_t count = flows_[at].count;
    std::copy_n(flows_[at].pieces, count, pieces);
    const uint32_t len = flows_[at].len;
    remove(at);
    std::sort(pieces, pieces + count,
              [](const Piece& a, const Piece& b) { return a.start < b.start; });
    Packet* whole = pieces[0].packet;
    Headers h = parse_ip_headers(whole->data(), whole->len());
    uint8_t* end = h.l3_len + len > kMaxDatagram ? nullptr : whole->append(len - pieces[0].len);
    if (end == nullptr) {
      Batch out;
      for (uint32_t i = 0; i < count; ++i) out.add(pieces[i].packet);
      emit(ctx, out, kPiecesGate);
      return nullptr;
    }
    for (uint32_t i = 1; i < count; ++i) {
      std::memcpy(end, pieces[i].packet->data() + pieces[i].payload_off, pieces[i].len);
      end += pieces[i].len;
      ctx.free(&pieces[i].packet, 1);
    }
    uint8_t* ip = whole->data() + h.l3_off;
    store_be16(ip + 2, static_cast<uint16_t>(h.l3_len + len));
    store_be16(ip + 6, load_be16(ip + 6) & static_cast<uint16_t>(~kMoreFragments));
    store_be16(ip + 10, ipv4_checksum(ip, h.l3_len));
    whole->set_wire_len(0);
    return whole;
  }

  uint32_t& chain(const FlowKey& key) {
    uint64_t hash = (key.addresses ^ key.id_and_proto * 0x9e3779b97f4a7c15ULL);
    hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93ULL;
    return chains_[(hash >> 32) & (chains_.size() - 1)];
  }

  uint32_t find_or_make(Context& ctx, const FlowKey& key) {
    for (uint32_t at = chain(key); at != kNone; at = flows_[at].next_in_chain) {
      if (flows_[at].key == key) return at;
    }
    if (free_ == kNone) give_up(ctx, oldest_, table_full_);
    const uint32_t at = free_;
    Flow& flow = flows_[at];
    free_ = flow.next_in_chain;
    flow.key = key;
    flow.since_ns = ctx.now_ns;
    flow.count = flow.received = flow.len = 0;
    uint32_t& head = chain(key);
    flow.next_in_chain = head;
    head = at;
    flow.older = newest_;
    flow.newer = kNone;
    (newest_ == kNone ? oldest_ : flows_[newest_].newer) = at;
    newest_ = at;
    ++used_;
    return at;
  }

  void remove(uint32_t at) {
    Flow& flow = flows_[at];
    uint32_t* link = &chain(flow.key);
    while (*link != at) link = &flows_[*link].next_in_chain;
    *link = flow.next_in_chain;
    (flow.older == kNone ? oldest_ : flows_[flow.older].newer) = flow.newer;
    (flow.newer == kNone ? newest_ : flows_[flow.newer].older) = flow.older;
    flow.next_in_chain = free_;
    free_ = at;
    --used_;
  }

  void give_up(Context& ctx, uint32_t at, uint32_t reason) {
    for (uint32_t i = 0; i < flows_[at].count; ++i) drop(ctx, flows_[at].pieces[i].packet, reason);
    remove(at);
  }

  Packet* lose(Context& ctx, Packet* packet, uint32_t reason) {
    drop(ctx, packet, reason);
    return nullptr;
  }

  std::vector<Flow> flows_;
  std::vector<uint32_t> chains_;  // first flow of each
  uint32_t free_ = kNone;         // chained by next_in_chain
  uint32_t oldest_ = kNone;
  uint32_t newest_ = kNone;
  uint32_t used_ = 0;
  uint32_t incomplete_ = 0;
  uint32_t table_full_ = 0;
  uint32_t overlap_ = 0;
  uint32_t bad_ = 0;
  uint32_t cut_ = 0;
  uint32_t many_ = 0;
};

const ModuleClass kClass = {"IPDefrag", "ip_defrag", "reassembles IPv4 datagrams", "IPDefragArg", 1,
                            2,          {},          make_module<IpDefrag>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
