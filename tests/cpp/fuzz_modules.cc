// SPDX-License-Identifier: BSD-3-Clause
// Every module class that takes packets, fed with frames that no sane host would send: each prefix
// of valid frames, lying lengths, deep VLAN stacks, and random bytes. What is checked is that no
// packet is lost or made up and, under sanitizers, that nothing is read or written out of bounds.
// FlowGen, which takes none, gets the same frames as templates.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "cpp/embark_files.h"
#include "engine/engine.h"

namespace {

using e2::Args;

std::string frame(bool ipv6, int vlans, bool lie) {
  std::string bytes(12, '\x02');
  for (int i = 0; i < vlans; ++i) bytes += std::string("\x81\x00\x00\x07", 4);
  if (ipv6) {
    bytes += std::string("\x86\xdd", 2);
    std::string ip(40, '\0');
    ip[0] = 0x60;
    ip[5] = lie ? '\xff' : 36;
    ip[6] = 0;  // hop-by-hop, then a destination-options header, then UDP
    bytes += ip;
    bytes += std::string("\x3c\x00\x01\x04\x00\x00\x00\x00", 8);
    bytes += std::string(
        lie ? "\x11\xff\x01\x04\x00\x00\x00\x00" : "\x11\x00\x01\x04\x00\x00\x00\x00", 8);
  } else {
    bytes += std::string("\x08\x00", 2);
    std::string ip(20, '\0');
    ip[0] = lie ? 0x4f : 0x45;
    ip[2] = lie ? '\xff' : 0;
    ip[3] = 40;
    ip[8] = 1;
    ip[9] = 17;
    bytes += ip;
  }
  bytes += std::string("\x04\x00\x00\x50\x00\x14\x00\x00", 8);
  bytes += "GET / HTTP/1.1";
  return bytes;
}

// ARP for IPv4 over Ethernet, or an MPLS label, behind tags.
std::string other_frame(bool arp, int vlans) {
  std::string bytes(12, '\x02');
  for (int i = 0; i < vlans; ++i) bytes += std::string("\x81\x00\x00\x07", 4);
  if (!arp) return bytes + std::string("\x88\x47\x00\x01\x01\x09\x60", 7);
  bytes += std::string("\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01", 10);
  return bytes + std::string(20, '\0');
}

std::vector<std::string> hostile_frames() {
  std::vector<std::string> all;
  for (const bool arp : {false, true}) {
    for (const int vlans : {0, 1, 8, 9}) {
      const std::string whole = other_frame(arp, vlans);
      for (size_t len = 0; len <= whole.size(); ++len) all.push_back(whole.substr(0, len));
    }
  }
  for (const bool ipv6 : {false, true}) {
    for (const int vlans : {0, 1, 2, 40}) {
      for (const bool lie : {false, true}) {
        const std::string whole = frame(ipv6, vlans, lie);
        for (size_t len = 0; len <= whole.size(); ++len) all.push_back(whole.substr(0, len));
      }
    }
  }
  uint32_t state = 12345;
  for (int i = 0; i < 500; ++i) {
    std::string bytes(i % 200, '\0');
    for (char& byte : bytes) {
      state = state * 1664525 + 1013904223;
      byte = static_cast<char>(state >> 24);
    }
    all.push_back(bytes);
  }
  all.emplace_back(2048, '\x45');
  return all;
}

struct Case {
  const char* module_class;
  Args args;
};

Args map(std::initializer_list<std::pair<const char*, Args>> entries) {
  Args args{Args::Map{}};
  for (const auto& entry : entries) args.set(entry.first, entry.second);
  return args;
}

Args list(Args item) {
  Args::List items;
  items.push_back(std::move(item));
  return items;
}

// Sets of fields anywhere in a packet, and a rule for each.
constexpr const char* kSetFields[] = {"raw.61.13", "raw.3.16", "ip6.dst", "l4.sport", "mpls.label"};

Args::List value_sets() {
  Args::List sets;
  for (const char* field : kSetFields) {
    Args range = map({{"min", 3}, {"max", 90000 % 65536}});
    const std::string name = field;
    const size_t size = name == "raw.61.13"                          ? 13
                        : name.front() == 'm' || name.front() == 'l' ? 0
                                                                     : 16;
    if (size > 0) {
      range = map({{"min_bin", std::string(size, '\x02')}, {"max_bin", std::string(size, '\x60')}});
    }
    sets.push_back(map({{"name", name}, {"field", name}, {"ranges", list(std::move(range))}}));
  }
  return sets;
}

Args::List set_rules() {
  Args::List rules;
  for (const char* field : kSetFields) {
    const auto gate = static_cast<int>(rules.size());
    const Args term = map({{"field", field}, {"set", field}});
    rules.push_back(map({{"gate", gate}, {"priority", gate}, {"terms", list(term)}}));
  }
  return rules;
}

// Rules that together ask for nearly everything; many of them need an index.
Args::List named_rules(int rounds) {
  Args::List rules;
  const auto add = [&rules](int gate, Args term) {
    Args::List terms;
    terms.push_back(std::move(term));
    rules.push_back(map({{"gate", gate}, {"priority", gate}, {"terms", std::move(terms)}}));
  };
  add(1, map({{"field", "raw.61.13"}, {"value_bin", std::string(13, '\x02')}}));
  add(2, map({{"field", "eth.src"},
              {"value", int64_t{0x020000000000}},
              {"mask", int64_t{0x020000000001}}}));
  for (int round = 1; round < rounds; ++round) {
    const std::string address(16, static_cast<char>(round));
    const Args range = map({{"min", 20 * round}, {"max", 20 * round + 9}});
    add(3, map({{"field", "ip.ttl"}, {"value", round}}));
    add(4, map({{"field", "vlan.id"}, {"value", round}}));
    add(5, map({{"field", "ip6.src"}, {"value_bin", address}}));
    add(6, map({{"field", "ip.src"}, {"value", round}}));
    add(7, map({{"field", "l4.dport"}, {"range", range}}));
    add(8, map({{"field", "mpls.label"}, {"value", round}}));
    add(9, map({{"field", "packet.len"}, {"range", range}}));
  }
  return rules;
}

std::vector<Case> cases(const EmbarkFiles& files) {
  const Args field = map({{"offset", 26}, {"num_bytes", 4}});
  Args gates = Args::List{};
  {
    Args::List two;
    two.emplace_back(0);
    two.emplace_back(1);
    gates = two;
  }
  Args::List rules;
  rules.push_back(map({{"src_ip", "0.0.0.0/1"}, {"dst_port", 80}}));
  rules.push_back(map({{"dst_ip", "::/1"}, {"drop", true}}));
  rules.push_back(map({{"established", true}}));
  std::vector<Case> all = {
      {"Bypass", {}},
      {"Merge", {}},
      {"IDS", {}},
      {"TrafficNormalizer", map({{"repair", false}})},
      {"TrafficNormalizer", map({{"repair", true}})},
      {"WebCache", map({{"entries", 64}})},
      {"NetworkMonitor", map({{"flows", 64}})},
      {"StatefulFirewall", map({{"flows", 8}})},
      {"MetadataMatch", map({{"rules", named_rules(2)}})},
      {"MetadataMatch", map({{"rules", named_rules(40)}, {"meta", map({{"tag", 16}})}})},
      {"MetadataMatch", map({{"rules", set_rules()}, {"sets", value_sets()}})},
      {"ExactMatch", map({{"fields", list(field)}})},
      {"Qos", map({{"fields", list(field)}})},
      {"IPDefrag", map({{"num_flows", 4}})},
      {"WildcardMatch", map({{"fields", list(field)}})},
      {"HashLB", map({{"gates", gates}, {"mode", "l4"}})},
      {"FlowSteer", map({{"ranges", list(map({{"start", 0}, {"end", uint64_t{1} << 32}}))}})},
      {"FlowSteer", map({{"ranges", list(map({{"start", 0}, {"end", uint64_t{1} << 32}}))},
                         {"symmetric", true},
                         {"max_flows", 8}})},
      {"FlowSteer",
       map({{"ranges", list(map({{"start", 0}, {"end", uint64_t{1} << 32}}))}, {"id_attr", "id"}})},
      {"RoundRobin", map({{"gates", gates}, {"mode", "packet"}})},
      {"RandomSplit", map({{"drop_rate", 0.5}, {"gates", gates}})},
      {"Split", map({{"size", 2}, {"offset", 36}})},
      {"IPLookup", {}},
      {"BPF", {}},
      {"VLANSplit", {}},
      {"VLANPush", map({{"tci", 5}})},
      {"VLANPop", {}},
      {"MACSwap", {}},
      {"IPSwap", {}},
      {"Rewrite", {}},
      {"Update", map({{"fields", list(map({{"offset", 40}, {"size", 4}, {"value", 7}}))}})},
      {"RandomUpdate",
       map({{"fields", list(map({{"offset", 40}, {"size", 4}, {"min", 1}, {"max", 7}}))}})},
      {"SetMetadata", map({{"attrs", list(map({{"name", "x"}, {"size", 4}, {"offset", 60}}))}})},
      {"EtherEncap", {}},
      {"IPEncap", {}},
      {"VXLANEncap", {}},
      {"VXLANDecap", {}},
      {"TunnelEncap", map({{"src_mac", "02:00:00:00:00:01"},
                           {"dst_mac", "02:00:00:00:00:02"},
                           {"src_ip", "192.0.2.1"},
                           {"dst_ip", "192.0.2.2"},
                           {"vni", 7},
                           {"copy_dscp", true}})},
      {"TunnelDecap", map({{"default_gate", 0}})},
      {"LoadMonitor", map({{"high_delay_ns", 1000}})},
      {"GenericDecap", map({{"bytes", 14}})},
      {"GenericEncap",
       map({{"fields", list(map({{"size", 4}, {"value", map({{"value_int", 7}})}}))}})},
      {"UpdateTTL", {}},
      {"IPChecksum", {}},
      {"IPChecksum", map({{"verify", true}})},
      {"L4Checksum", {}},
      {"L4Checksum", map({{"verify", true}})},
      {"NAT", map({{"ext_addrs", list(map({{"ext_addr", "192.0.2.1"}}))}})},
      {"NAT",
       map({{"ext_addrs", list(map({{"ext_addr", "2001:db8::1"}}))}, {"encrypted_ports", true}})},
      {"L4LB",
       map({{"services", list(map({{"address", "0.0.0.0"},
                                   {"protocol", 17},
                                   {"backends", list(map({{"address", "192.0.2.1"}}))}}))}})},
      {"L4LB",
       map({{"services", list(map({{"address", "::"},
                                   {"protocol", 17},
                                   {"backends", list(map({{"address", "2001:db8::1"}}))}}))}})},
      {"Timestamp", {}},
      {"Measure", {}},
      {"Dump", {}},
      {"NoOP", {}},
      {"ACL", map({{"rules", rules}})},
      {"StaticNAT",
       map({{"pairs",
             list(map(
                 {{"int_range", map({{"start", "0.0.0.0"}, {"end", "127.255.255.255"}})},
                  {"ext_range", map({{"start", "64.0.0.0"}, {"end", "191.255.255.255"}})}}))}})},
      {"L2Forward", {}},
      {"ArpResponder", map({{"ip", "0.0.0.0"}, {"mac_addr", "02:00:00:00:00:01"}})},
      {"NeighborResponder", map({{"ip", "::/0"}, {"mac_addr", "02:00:00:00:00:01"}})},
      {"PathMtu", map({{"mtu", 1500}})},
      {"UrlFilter", map({{"blacklist", list(map({{"host", "h"}, {"path", "/"}}))}})},
      {"DRR", map({{"num_flows", 7}, {"max_flow_queue_size", 100}})},
      {"Buffer", {}},
      {"Delay", map({{"size", 64}})},
      {"MPLSPop", {}},
      {"WorkerSplit", {}},
      {"MetadataTest", {}},
  };
  for (const char* name :
       {"PayloadSeal", "PrefixMatchEncrypt", "PrefixMatchDecrypt", "PayloadOpen"}) {
    all.push_back({name, files.args(name)});
  }
  return all;
}

}  // namespace

TEST_CASE("hostile frames through every module: none lost, none made up") {
  const std::vector<std::string> frames = hostile_frames();
  const EmbarkFiles files;
  for (const Case& at : cases(files)) {
    if (e2::find_module_class(at.module_class) == nullptr) continue;
    CAPTURE(at.module_class);
    e2::Engine engine(2048, 2048);
    const e2::Status made = engine.create_module("m", at.module_class, at.args);
    REQUIRE_MESSAGE(made.ok(), made.message);
    std::map<int, std::vector<std::string>> out;
    const e2::Status ran = engine.run_packets("m", 0, frames, out);
    REQUIRE_MESSAGE(ran.ok(), ran.message);
    uint64_t seen = 0;
    for (const auto& gate : out) seen += gate.second.size();
    Args stats;
    REQUIRE(engine.module_command("m", "e2_stats", {}, stats).ok());
    for (const auto& drop : stats["drops"].as_map()) seen += drop.second.as_uint();
    // A module that queues still has some.
    CHECK(seen + engine.mempool()["in_use"].as_uint() == frames.size());
    REQUIRE(engine.reset_modules().ok());
    CHECK(engine.mempool()["in_use"].as_uint() == 0);
  }
}

namespace {

// A segment of a connection to the port of HTTP over IPv4.
std::string segment(uint32_t flow, uint32_t seq, uint8_t flags, const std::string& data) {
  std::string bytes(12, '\x02');
  bytes += std::string("\x08\x00\x45\x00", 4);
  const size_t total = 40 + data.size();
  bytes += {static_cast<char>(total >> 8), static_cast<char>(total)};
  bytes += std::string("\0\0\0\0\x40\x06\0\0\x0a\0\0\x01\x0a\0", 14);
  bytes += {static_cast<char>(flow >> 8), static_cast<char>(flow)};
  bytes += std::string("\x27\x11\0\x50", 4);
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(seq >> shift);
  bytes += std::string("\0\0\0\x09\x50", 5) + static_cast<char>(flags);
  return bytes + std::string(6, '\0') + data;
}

}  // namespace

TEST_CASE(
    "hostile streams through UrlFilter: pieces anywhere, more connections than it remembers") {
  e2::Engine engine(2048, 2048);
  const Args url = map({{"host", "h"}, {"path", "/"}});
  REQUIRE(engine.create_module("m", "UrlFilter", map({{"blacklist", list(url)}})).ok());
  const std::string request = "GET / HTTP/1.1\r\nHost: h\r\n";
  uint32_t state = 99;
  const auto random = [&state](uint32_t below) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
  };
  uint64_t given = 0;
  uint64_t to_server = 0;
  uint64_t to_client = 0;
  for (uint32_t round = 0; round < 400; ++round) {
    std::vector<std::string> packets;
    for (int i = 0; i < 500; ++i) {
      const uint32_t flow = round < 200 ? random(20) : random(65536);
      const uint32_t start = random(8);
      switch (random(round < 200 ? 4 : 2)) {
        case 0:
          packets.push_back(segment(flow, 0xfffffff0, 0x02, ""));
          break;
        case 1:
          packets.push_back(segment(flow, 0xfffffff1 + start, 0x10, request.substr(start)));
          break;
        case 2:
          packets.push_back(
              segment(flow, 0xfffffff1 + 7 * random(700), 0x10, std::string(random(20), 'x')));
          break;
        default:
          packets.push_back(segment(flow, 0xfffffff1 + random(4200), 0x11 - random(2),
                                    std::string(random(1400), 'x')));
      }
    }
    given += packets.size();
    std::map<int, std::vector<std::string>> out;
    REQUIRE(engine.run_packets("m", 0, packets, out).ok());
    to_server += out[0].size();
    to_client += out[1].size();
  }
  Args stats;
  REQUIRE(engine.module_command("m", "e2_stats", {}, stats).ok());
  const uint64_t answered = stats["drops"]["blocked request"].as_uint();
  const uint64_t silent = stats["drops"]["blocked connection"].as_uint();
  CHECK(answered > 100);
  CHECK(silent > 100);
  CHECK(to_server + silent == given);  // a RST instead of each request
  CHECK(to_client == 2 * answered);
  CHECK(engine.mempool()["in_use"].as_uint() == 0);
}

TEST_CASE("hostile streams through StatefulFirewall: each passes or is counted") {
  e2::Engine engine(2048, 2048);
  const Args few = map({{"flows", 32}, {"timeout_ms", 5}, {"linger_ms", 1}});
  REQUIRE(engine.create_module("m", "StatefulFirewall", few).ok());
  uint32_t state = 7;
  const auto random = [&state](uint32_t below) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
  };
  uint64_t given = 0;
  uint64_t passed = 0;
  uint64_t now_ns = uint64_t{1} << 61;
  Args status;
  for (uint32_t round = 0; round < 400; ++round) {
    std::vector<std::string> packets;
    for (int i = 0; i < 500; ++i) {
      packets.push_back(segment(random(round < 200 ? 40 : 65536), 0,
                                static_cast<uint8_t>(random(2) == 0 ? 2 : random(64)), ""));
      if (random(9) == 0) packets.back().resize(random(55));
    }
    given += packets.size();
    now_ns += random(500'000);
    std::map<int, std::vector<std::string>> out;
    REQUIRE(engine.run_packets("m", 0, packets, out, now_ns).ok());
    passed += out[0].size();
    status = {};
    REQUIRE(engine.module_command("m", "get_status", {}, status).ok());
    CHECK(status["connections"].as_uint() <= 32);
  }
  CHECK(passed > 10'000);
  CHECK(status["begun"].as_uint() > 1000);
  uint64_t dropped = 0;
  for (const char* reason : {"mid_connection", "table_full", "bad_segment"}) {
    const uint64_t packets = status[std::string(reason) + "_packets"].as_uint();
    CHECK(packets > 1000);
    dropped += packets;
  }
  CHECK(passed + dropped == given);
  CHECK(engine.mempool()["in_use"].as_uint() == 0);
}

TEST_CASE("hostile templates for FlowGen: refused, or made into packets of their length") {
  e2::Engine host(64, 2048);
  e2::PacketPool pool(256, 2048);
  e2::PoolCache cache;
  e2::Context ctx;
  ctx.pool = &pool;
  ctx.pool_cache = &cache;
  uint32_t accepted = 0;
  uint32_t refused = 0;
  for (const std::string& frame : hostile_frames()) {
    CAPTURE(frame.size());
    const std::unique_ptr<e2::Module> module = e2::find_module_class("FlowGen")->make();
    const Args args = map({{"template", frame},
                           {"pps", 1e6},
                           {"flow_rate", 1e4},
                           {"flow_duration", 0.01},
                           {"port_src_range", 100}});
    if (!module->init(host, args).ok()) {
      ++refused;
      continue;
    }
    ++accepted;
    uint64_t made = 0;
    for (int run = 0; run < 50; ++run) {
      ctx.now_ns += 100'000;
      made += module->run_task(ctx, 0).packets;
    }
    CHECK(made > 0);
    CHECK(module->drops(e2::kReasonNoGate) == made);  // its gate leads nowhere
    module->release(ctx);
    pool.flush(cache);
    CHECK(pool.available() == pool.size());
  }
  CHECK(accepted > 0);
  CHECK(refused > 0);
}
