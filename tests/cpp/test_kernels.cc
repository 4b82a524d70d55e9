// SPDX-License-Identifier: BSD-3-Clause
// Tests of what has a short cut or one version per instruction set, against the plain way. Which
// versions run is up to E2_ISA (ext/host/isa.h).
#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/gate_split.h"
#include "engine/pool.h"
#include "host/flow_hash.h"
#include "host/isa.h"
#include "modules/bpf_filter.h"
#include "modules/rule_scan.h"

namespace {

using e2::Batch;
using e2::Gate;
using e2::Headers;
using e2::kMaxBatch;
using e2::PacketMask;
using Random = std::mt19937_64;

// A UDP or TCP frame over IPv4 as most are, with some bytes changed.
std::vector<uint8_t> frame_near_common(Random& random) {
  std::vector<uint8_t> frame(random() % 40 + 30, 0);
  frame.resize(std::max<size_t>(frame.size(), 60 - random() % 30));
  frame[12] = 8;
  if (frame.size() > 14) frame[14] = 0x45;
  if (frame.size() > 17) frame[17] = static_cast<uint8_t>(frame.size() - 14 + random() % 3 - 1);
  if (frame.size() > 23) frame[23] = random() % 2 == 0 ? e2::kProtoUdp : e2::kProtoTcp;
  if (frame.size() > 39) frame[39] = static_cast<uint8_t>(random() % 40);
  if (frame.size() > 46) frame[46] = static_cast<uint8_t>(random() % 16 << 4);
  for (uint64_t changes = random() % 3; changes > 0; --changes) {
    frame[random() % frame.size()] = static_cast<uint8_t>(random());
  }
  return frame;
}

// The same over IPv6, bare or behind Destination Options.
std::vector<uint8_t> frame_near_common_ipv6(Random& random) {
  const bool options = random() % 2 == 0;
  const size_t start = options ? 70 : 54;
  std::vector<uint8_t> frame(start + random() % 40, 0);
  frame[12] = 0x86;
  frame[13] = 0xdd;
  frame[14] = 0x60;
  frame[19] = static_cast<uint8_t>(frame.size() - 54 + random() % 3 - 1);
  const uint8_t proto = random() % 2 == 0 ? e2::kProtoUdp : e2::kProtoTcp;
  frame[20] = options ? e2::kProtoDestinationOptions : proto;
  if (options) {
    frame[54] = proto;
    frame[55] = 1;
  }
  if (frame.size() > start + 5) frame[start + 5] = static_cast<uint8_t>(random() % 50);
  if (frame.size() > start + 12) frame[start + 12] = static_cast<uint8_t>(random() % 16 << 4);
  for (uint64_t changes = random() % 3; changes > 0; --changes) {
    frame[random() % frame.size()] = static_cast<uint8_t>(random());
  }
  return frame;
}

bool same(const Headers& a, const Headers& b) {
  return a.l2_len == b.l2_len && a.ether_type == b.ether_type && a.vlan_tci == b.vlan_tci &&
         a.has_vlan == b.has_vlan && a.ip_version == b.ip_version && a.ip_proto == b.ip_proto &&
         a.fragment == b.fragment && a.more_fragments == b.more_fragments && a.l3_off == b.l3_off &&
         a.l4_off == b.l4_off && a.payload_off == b.payload_off && a.payload_len == b.payload_len &&
         a.sport == b.sport && a.dport == b.dport && a.tcp_flags == b.tcp_flags &&
         a.l3_len == b.l3_len && a.ip_total_len == b.ip_total_len;
}

uint32_t plain_sum(const uint8_t* bytes, size_t len) {
  uint32_t sum = 0;
  for (size_t i = 0; i < len; ++i) sum += i % 2 == 0 ? bytes[i] << 8 : bytes[i];
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

}  // namespace

TEST_CASE("the level that E2_ISA asks for is one that this CPU has") {
  CHECK(e2::check_isa().ok());
  MESSAGE("kernels: ", std::string(e2::isa_name(e2::isa())));
}

TEST_CASE("the short cuts of parse_headers say what the whole parser says") {
  Random random(1);
  uint32_t common[2] = {};
  for (int round = 0; round < 40000; ++round) {
    const bool ipv6 = round % 2 == 1;
    const std::vector<uint8_t> frame =
        ipv6 ? frame_near_common_ipv6(random) : frame_near_common(random);
    const auto len = static_cast<uint32_t>(frame.size());
    std::unique_ptr<uint8_t[]> exact(new uint8_t[len]);  // a read past the end shows
    std::memcpy(exact.get(), frame.data(), len);
    Headers any;
    e2::parse_any_headers(exact.get(), len, any);
    Headers shortened;
    common[ipv6] += ipv6 ? e2::parse_common_ipv6(exact.get(), len, shortened)
                         : e2::parse_common_headers(exact.get(), len, shortened);
    Headers h = e2::parse_headers(exact.get(), len);
    REQUIRE(same(h, any));
    Headers ip = e2::parse_ip_headers(exact.get(), len);
    REQUIRE(ip.l2_len == any.l2_len);
    REQUIRE(ip.ether_type == any.ether_type);
    REQUIRE(ip.ip_version == any.ip_version);
    REQUIRE(ip.l3_off == any.l3_off);
    REQUIRE(ip.l3_len == any.l3_len);
    Headers found = e2::find_ip(exact.get(), len);
    REQUIRE(found.l2_len == any.l2_len);
    REQUIRE(found.ether_type == any.ether_type);
    REQUIRE(found.ip_version == any.ip_version);
    REQUIRE(found.l3_off == any.l3_off);
    if (any.ip_version != 0) {
      e2::FiveTuple key;
      e2::flow_key(exact.get(), any, key);
      REQUIRE(e2::flow_hash(exact.get(), any) == e2::flow_hash(key));
    }
  }
  for (const uint32_t count : common) {
    CHECK(count > 2000);
    CHECK(count < 18000);
  }
}

TEST_CASE("checksums of every length and offset") {
  Random random(2);
  std::vector<uint8_t> bytes(160);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 5 == 0 ? 0xff : random());
  for (size_t from = 0; from < 8; ++from) {
    for (size_t len = 0; len + from <= bytes.size(); ++len) {
      const uint32_t sum = e2::checksum_add(&bytes[from], len);
      REQUIRE(e2::checksum_fold(sum) == static_cast<uint16_t>(~plain_sum(&bytes[from], len)));
    }
  }
  for (uint32_t len = 20; len <= 60; len += 4) {
    std::vector<uint8_t> header(bytes.begin(), bytes.begin() + len);
    e2::store_be16(&header[10], e2::ipv4_checksum(header.data(), len));
    CHECK(plain_sum(header.data(), len) == 0xffff);
  }
}

TEST_CASE("a batch is split by gate, in order") {
  Random random(3);
  const e2::GateSplit& split = e2::gate_split();
  for (int round = 0; round < 2000; ++round) {
    Batch batch;
    Gate gates[kMaxBatch];
    const uint32_t kinds = random() % 5 + 1;
    for (Gate& gate : gates) gate = static_cast<Gate>(random() % kinds * 0x3f81);
    batch.size = random() % kMaxBatch + 1;
    for (uint32_t i = 0; i < kMaxBatch; ++i) {
      batch.packets[i] = reinterpret_cast<e2::Packet*>(uintptr_t{64} * (i + 1));  // never used
    }
    const Gate gate = gates[random() % batch.size];
    const PacketMask mask = split.match(gates, gate) & e2::mask_of(batch.size);
    Batch taken;
    split.take(batch, mask, taken);
    uint32_t at = 0;
    for (uint32_t i = 0; i < batch.size; ++i) {
      REQUIRE((mask >> i & 1) == (gates[i] == gate));
      if (gates[i] == gate) REQUIRE(taken[at++] == batch[i]);
    }
    REQUIRE(taken.size == at);
  }
}

TEST_CASE("the last rule that holds is found") {
  Random random(4);
  for (int round = 0; round < 2000; ++round) {
    e2::KeyBatch keys;
    const uint32_t count = random() % kMaxBatch + 1;
    for (auto& column : keys.words) {
      for (uint64_t& word : column) word = random() % 4;
    }
    uint64_t values[e2::kMaxScanRules][e2::kMaxKeyWords];
    uint64_t masks[e2::kMaxScanRules][e2::kMaxKeyWords];
    for (uint32_t r = 0; r < e2::kMaxScanRules; ++r) {
      for (uint32_t w = 0; w < e2::kMaxKeyWords; ++w) {
        masks[r][w] = random() % 4;
        values[r][w] = random() & masks[r][w];
      }
    }
    const std::vector<uint8_t> columns = {5, 0, 7};
    e2::ScanRules rules = {
        values[0], e2::kMaxKeyWords, masks[0], e2::kMaxKeyWords, columns.data(), 0, 0};
    rules.column_count = random() % 4;
    rules.rules = random() % (e2::kMaxScanRules + 1);
    uint64_t hits[kMaxBatch];
    e2::rule_scan(keys, count, rules, hits);
    for (uint32_t i = 0; i < count; ++i) {
      uint64_t best = e2::kNoRule;
      for (uint32_t r = 0; r < rules.rules; ++r) {
        bool holds = true;
        for (uint32_t c = 0; c < rules.column_count; ++c) {
          const uint8_t w = columns[c];
          holds &= (keys.words[w][i] & masks[r][w]) == values[r][w];
        }
        if (holds) best = r;
      }
      REQUIRE(hits[i] == best);
    }
  }
}

TEST_CASE("filters read common packets as they read all others") {
  Random random(5);
  e2::PacketPool pool(64, 2048);
  e2::PoolCache cache;
  e2::Context ctx;
  ctx.pool = &pool;
  ctx.pool_cache = &cache;
  for (int round = 0; round < 500; ++round) {
    Batch batch;
    const uint32_t made = ctx.alloc(batch, random() % kMaxBatch + 1, 0);
    for (uint32_t i = 0; i < made; ++i) {
      const std::vector<uint8_t> frame = frame_near_common(random);
      std::memcpy(batch[i]->append(static_cast<uint32_t>(frame.size())), frame.data(),
                  frame.size());
    }
    const e2::Frames frames(batch);
    for (uint32_t i = 0; i < made; ++i) {
      Headers any;
      e2::parse_any_headers(batch[i]->data(), batch[i]->len(), any);
      Headers seen = frames.headers(i);
      seen.payload_off = any.payload_off;  // no filter asks for what is behind the ports
      seen.payload_len = any.payload_len;
      seen.ip_total_len = any.ip_total_len;
      seen.tcp_flags = any.tcp_flags;
      REQUIRE(same(seen, any));
    }
    ctx.free(batch);
  }
  pool.flush(cache);
}
