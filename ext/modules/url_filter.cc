// SPDX-License-Identifier: BSD-3-Clause
// UrlFilter: ends HTTP/1 connections whose request asks for a host and path on the blacklist.
//
// Of every TCP connection that begins with a SYN at gate 0, it puts the first 4096 bytes from the
// client together, in whatever pieces and order they come, and reads the first request there. As
// soon as its Host line and its path are an entry of the blacklist, the packet that completed them
// is dropped, the server gets a RST (gate 0), the client a 403 answer and a RST (gate 1), and all
// that the client sends on that connection is dropped until it has been silent for 10 s. Host names
// are compared without regard to case and, where the entry has no port, to a port; paths must be
// equal, byte by byte. IPv4 and IPv6, on any port, behind any VLAN tags.
//
// What is put together has been sent on already: a request in several packets reaches the server up
// to, and without, the piece that gives it away. So the server never sees a blocked request whole.
//
// Family: matching
// Gates: in 2, out 2. Gate 0 leads to the servers, gate 1 to the clients; packets that come in by
// gate 1 leave by gate 1 unchanged.
// Arguments: UrlFilterArg
// Commands:
//   add                 adds to the blacklist
//   clear               empties the blacklist; connections that are blocked stay so
//   get_initial_arg     nothing: the blacklist is the runtime config
//   get_runtime_config  the blacklist, sorted by host and path
//   set_runtime_config  replaces the blacklist
// Metadata: none.
// Drop reasons:
//   "blocked request"     the packet completed a request on the blacklist
//   "blocked connection"  a later one of its connection
// Limits: one worker at a time. Only the first request of a connection is looked at, so a second
// one on a connection that stays open passes; and so do requests without Host line, with the host
// in the request line, with a Host line past byte 4096 or in more than 8 separate pieces, in IP
// fragments, over TLS or HTTP/2. Pieces that overlap count as they came last, which need not be
// what the server makes of them: a TrafficNormalizer in front helps. 65536 connections are
// remembered, of which 4096 with bytes; beyond that old ones are forgotten and pass. Where the
// packet pool is empty, no RST or answer is sent.
// Method: commands change the blacklist while packets flow (live_table.h).
// Origin: the module of this name in BESS, which knows IPv4 without VLAN tags, compares host names
// with their case and takes up to 16 headers and any amount of memory; the code is new.
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "host/flow_hash.h"
#include "host/live_table.h"
#include "modules/http_text.h"
#include "modules/key_table.h"
#include "modules/store.h"
#include "modules/stream_start.h"
#include "modules/tcp_reply.h"

namespace e2 {
namespace {

constexpr uint32_t kConnections = 65536;
constexpr uint32_t kStreams = 4096;
constexpr uint32_t kNone = Store<StreamStart>::kNone;
constexpr uint64_t kIdleNs = 10ULL * 1000 * 1000 * 1000;
constexpr uint32_t kLongestHost = 255;
constexpr uint8_t kTcpFin = 0x01;
constexpr uint8_t kTcpSyn = 0x02;
constexpr char kAnswer[] = "HTTP/1.1 403 Bad Forbidden\r\nConnection: Closed\r\n\r\n";

struct Connection {
  uint64_t key[kFlowWords];
  uint64_t expires_ns;
  uint32_t first_seq;  // of its first byte
  uint32_t stream;     // kNone while there are no bytes
  uint32_t next;       // for the store
  uint32_t older;
  uint32_t newer;
  bool blocked;
};

class UrlFilter final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    blocked_request_ = add_drop_reason("blocked request");
    blocked_connection_ = add_drop_reason("blocked connection");
    table_.reserve(kConnections);
    connections_.init(kConnections);
    streams_.init(kStreams);
    Args none;
    return add(args, none);
  }

  void process(Context& ctx, Batch& batch, Gate in_gate) override {
    if (in_gate == 1) {
      emit(ctx, batch, 1);
      return;
    }
    const uint64_t now_ns = ctx.now_ns;
    for (uint32_t i = 0; i < 2 * kMaxBatch && ages_.oldest() != kNone; ++i) {
      if (connections_[ages_.oldest()].expires_ns > now_ns) break;
      forget(ages_.oldest());
    }
    uint32_t reasons[kMaxBatch];
    auto blacklist = blacklist_.read(ctx);
    for (uint32_t i = 0; i < batch.size; ++i) {
      const uint8_t* data = batch[i]->data();
      Headers h = parse_headers(data, batch[i]->len());
      const bool tcp = h.ip_proto == kProtoTcp && h.l4_off != 0 && h.payload_off != 0;
      reasons[i] = tcp ? look(*blacklist, data, h, now_ns) : 0;
    }
    blacklist.release();
    Batch to_server;
    Batch to_client;
    for (uint32_t i = 0; i < batch.size; ++i) {
      Packet* packet = batch[i];
      const uint32_t reason = reasons[i];
      if (reason == 0) {
        to_server.add(packet);
        continue;
      }
      if (reason == blocked_request_) {
        const uint8_t* data = packet->data();
        Headers h = parse_headers(data, packet->len());
        answer(ctx, data, h, to_server, to_client);
        if (to_client.size + 2 > kMaxBatch) emit(ctx, to_client, 1);
      }
      drop(ctx, packet, reason);
    }
    batch.clear();
    emit(ctx, to_server, 0);
    emit(ctx, to_client, 1);
  }

  std::string description() const override {
    return std::to_string(blacklist_.look()->size()) + " hosts";
  }

  Status add(const Args& args, Args&) {
    blacklist_.change([&args](Blacklist& blacklist) { add_urls(args, blacklist); });
    return {};
  }

  Status clear(const Args&, Args&) {
    blacklist_.change([](Blacklist& blacklist) { blacklist.clear(); });
    return {};
  }

  Status get_initial_arg(const Args&, Args&) { return {}; }

  Status get_runtime_config(const Args&, Args& response) {
    Args::List list;
    const auto blacklist = blacklist_.look();
    for (const auto& host : *blacklist) {
      for (const std::string& path : host.second) {
        list.emplace_back(Args::Map{{"host", host.first}, {"path", path}});
      }
    }
    response.set("blacklist", std::move(list));
    return {};
  }

  Status set_runtime_config(const Args& args, Args&) {
    blacklist_.change([&args](Blacklist& blacklist) {
      blacklist.clear();
      add_urls(args, blacklist);
    });
    return {};
  }

 private:
  // Paths by host in lower case; both are found without making a string.
  using Blacklist = std::map<std::string, std::set<std::string, std::less<>>, std::less<>>;

  static void add_urls(const Args& args, Blacklist& to) {
    for (const Args& url : args["blacklist"].as_list()) {
      std::string host = url["host"].as_string();
      for (char& c : host) c = static_cast<char>(lower(static_cast<uint8_t>(c)));
      to[host].insert(url["path"].as_string());
    }
  }

  // The reason to drop a TCP segment from a client; 0 where it passes.
  uint32_t look(const Blacklist& blacklist, const uint8_t* data, const Headers& h,
                uint64_t now_ns) {
    uint64_t key[kFlowWords];
    flow_words(data, h, key);
    const uint64_t* found = table_.find(key);
    const bool syn = (h.tcp_flags & kTcpSyn) != 0;
    if (found == nullptr && !syn) return 0;
    const uint32_t seq = load_be32(data + h.l4_off + 4) + (syn ? 1 : 0);
    uint32_t index = found == nullptr ? kNone : static_cast<uint32_t>(found[0]);
    if (index != kNone && connections_[index].expires_ns <= now_ns) {
      forget(index);
      index = kNone;
      if (!syn) return 0;
    }
    if (index == kNone) index = remember(key, seq);
    Connection& connection = connections_[index];
    connection.expires_ns = now_ns + kIdleNs;
    ages_.renew(connections_, index);
    if (connection.blocked) return blocked_connection_;
    if (syn && connection.first_seq != seq) {
      drop_stream(connection);
      connection.first_seq = seq;
    }
    if (h.payload_len != 0 &&
        blacklisted(blacklist, connection, index, seq, data + h.payload_off, h)) {
      drop_stream(connections_[index]);
      connections_[index].blocked = true;
      return blocked_request_;
    }
    return 0;
  }

  // Takes up a segment's bytes, and whether the request is known to be on the blacklist with them.
  // A connection that can't become so is forgotten.
  bool blacklisted(const Blacklist& blacklist, Connection& connection, uint32_t index, uint32_t seq,
                   const uint8_t* bytes, const Headers& h) {
    uint32_t offset = seq - connection.first_seq;
    uint32_t len = h.payload_len;
    if (offset > ~0U / 2) {  // before the first byte, in part or as a whole
      const uint32_t before = 0U - offset;
      if (before >= len) return false;
      bytes += before;
      len -= before;
      offset = 0;
    }
    if (connection.stream == kNone) connection.stream = take_stream(index);
    StreamStart& stream = streams_[connection.stream];
    stream.insert(offset, bytes, len);
    const Text text = {stream.bytes(), stream.bytes() + stream.len()};
    const HttpProgress progress = read_request_start(text, [&blacklist](Text target, Text host) {
      return on_blacklist(blacklist, target, host);
    });
    if (progress == HttpProgress::kStopped) return true;
    const bool more = progress == HttpProgress::kMore && stream.len() < StreamStart::kBytes;
    if (!more || (h.tcp_flags & kTcpFin) != 0) forget(index);
    return false;
  }

  static bool on_blacklist(const Blacklist& blacklist, Text target, Text host) {
    char lowered[kLongestHost];
    const auto len = static_cast<size_t>(host.end - host.start);
    if (len > sizeof lowered) return false;
    for (size_t i = 0; i < len; ++i) {
      lowered[i] = static_cast<char>(lower(static_cast<uint8_t>(host.start[i])));
    }
    const std::string_view path(target.start, static_cast<size_t>(target.end - target.start));
    const std::string_view name(lowered, len);
    if (has(blacklist, name, path)) return true;
    const size_t colon = name.rfind(':');
    return colon != std::string_view::npos && has(blacklist, name.substr(0, colon), path);
  }

  static bool has(const Blacklist& blacklist, std::string_view host, std::string_view path) {
    const auto found = blacklist.find(host);
    return found != blacklist.end() && found->second.find(path) != found->second.end();
  }

  static void answer(Context& ctx, const uint8_t* data, const Headers& h, Batch& to_server,
                     Batch& to_client) {
    const uint32_t seq = load_be32(data + h.l4_off + 4);
    const uint32_t ack = load_be32(data + h.l4_off + 8);
    constexpr uint32_t kAnswerBytes = sizeof kAnswer - 1;
    constexpr uint8_t kReset = kTcpRst | kTcpAck;
    send(ctx, data, h, {false, kReset, 2, seq, ack, nullptr, 0}, to_server);
    send(ctx, data, h, {true, kTcpAck, 1, ack, seq, kAnswer, kAnswerBytes}, to_client);
    send(ctx, data, h, {true, kReset, 2, ack + kAnswerBytes, seq, nullptr, 0}, to_client);
  }

  static void send(Context& ctx, const uint8_t* data, const Headers& h, const TcpSegment& segment,
                   Batch& to) {
    if (ctx.alloc(to, 1, tcp_segment_bytes(h, segment)) == 0) return;
    make_tcp(data, h, segment, *to[to.size - 1]);
  }

  uint32_t remember(const uint64_t* key, uint32_t first_seq) {
    if (connections_.full()) forget(ages_.oldest());
    const uint32_t index = connections_.take();
    Connection& connection = connections_[index];
    std::copy_n(key, kFlowWords, connection.key);
    connection.first_seq = first_seq;
    connection.stream = kNone;
    connection.blocked = false;
    ages_.append(connections_, index);
    bool created = false;
    *table_.insert(key, created) = index;
    return index;
  }

  void forget(uint32_t index) {
    drop_stream(connections_[index]);
    ages_.unlink(connections_, index);
    table_.erase(connections_[index].key);
    connections_.give_back(index);
  }

  // Storage for the bytes of a connection that has none; where all is in use, the connections that
  // have some are forgotten in turn.
  uint32_t take_stream(uint32_t index) {
    if (streams_.full()) forget(owners_[next_victim_++ % kStreams]);
    const uint32_t stream = streams_.take();
    streams_[stream].clear();
    owners_[stream] = index;
    return stream;
  }

  void drop_stream(Connection& connection) {
    if (connection.stream != kNone) streams_.give_back(connection.stream);
    connection.stream = kNone;
  }

  Live<Blacklist> blacklist_;
  KeyTable table_{kFlowWords, 1};  // connections by their client's direction
  Store<Connection> connections_;
  Store<StreamStart> streams_;
  uint32_t owners_[kStreams];  // of streams that are taken: their connections
  uint32_t next_victim_ = 0;
  AgeList ages_;  // by last packet
  uint32_t blocked_request_ = 0;
  uint32_t blocked_connection_ = 0;
};

const ModuleClass kClass = {
    "UrlFilter",
    "url-filter",
    "ends HTTP connections that ask for a host and path on a blacklist",
    "UrlFilterArg",
    2,
    2,
    {{"get_initial_arg", "EmptyArg", "UrlFilterArg", true, command(&UrlFilter::get_initial_arg)},
     {"get_runtime_config", "EmptyArg", "UrlFilterConfig", true,
      command(&UrlFilter::get_runtime_config)},
     {"set_runtime_config", "UrlFilterConfig", "EmptyArg", true,
      command(&UrlFilter::set_runtime_config)},
     {"add", "UrlFilterArg", "EmptyArg", true, command(&UrlFilter::add)},
     {"clear", "EmptyArg", "EmptyArg", true, command(&UrlFilter::clear)}},
    make_module<UrlFilter>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
