// SPDX-License-Identifier: BSD-3-Clause
// PathMtu and NeighborResponder, fed with packets that concern them in thousands of mutations:
// headers whose lengths, options and fragments lie, with IP checksums mended so that they are
// looked at. What is checked is that nothing that leaves is longer than the MTU, that no packet is
// lost or made up and, under sanitizers, that nothing is read or written out of bounds.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "engine/engine.h"
#include "host/headers.h"

namespace {

using e2::Args;
using Packets = std::vector<std::string>;

Args map(std::initializer_list<std::pair<const char*, Args>> entries) {
  Args args{Args::Map{}};
  for (const auto& entry : entries) args.set(entry.first, entry.second);
  return args;
}

struct Outcome {
  std::map<int, Packets> out;
  uint64_t dropped = 0;
};

Outcome run(const char* module_class, const Args& args, const Packets& packets) {
  e2::Engine engine(8192, 2048);
  const e2::Status made = engine.create_module("m", module_class, args);
  REQUIRE_MESSAGE(made.ok(), made.message);
  Outcome outcome;
  REQUIRE(engine.run_packets("m", 0, packets, outcome.out).ok());
  Args stats;
  REQUIRE(engine.module_command("m", "e2_stats", {}, stats).ok());
  for (const auto& drop : stats["drops"].as_map()) outcome.dropped += drop.second.as_uint();
  CHECK(engine.mempool()["in_use"].as_uint() == 0);
  return outcome;
}

e2::Headers parse(const std::string& frame) {
  return e2::parse_headers(reinterpret_cast<const uint8_t*>(frame.data()),
                           static_cast<uint32_t>(frame.size()));
}

void mend(std::string& frame) {
  const e2::Headers h = parse(frame);
  auto* const ip = reinterpret_cast<uint8_t*>(frame.data()) + h.l3_off;
  if (h.ip_version == 4) e2::store_be16(ip + 10, e2::ipv4_checksum(ip, h.l3_len));
}

// TCP with options over either, behind tags; IPv4 with options.
std::string packet(bool ipv6, int tags, uint32_t payload, bool dont_fragment) {
  std::string frame(12, '\x02');
  for (int i = 0; i < tags; ++i) frame += std::string("\x81\x00\x00\x07", 4);
  const uint32_t behind = 32 + payload;
  std::string ip(ipv6 ? 40 : 36, '\0');
  auto* const bytes = reinterpret_cast<uint8_t*>(ip.data());
  if (ipv6) {
    frame += std::string("\x86\xdd", 2);
    bytes[0] = 0x60;
    e2::store_be16(bytes + 4, static_cast<uint16_t>(behind));
    bytes[6] = 6;
    ip.replace(8, 32, std::string(32, '\x20'));
  } else {
    frame += std::string("\x08\x00", 2);
    bytes[0] = 0x49;
    e2::store_be16(bytes + 2, static_cast<uint16_t>(36 + behind));
    bytes[6] = dont_fragment ? 0x40 : 0;
    bytes[9] = 6;
    ip.replace(12, 8, "\x0a\x01\x01\x01\x0a\x02\x02\x02");
    ip.replace(20, 16, std::string("\x94\x04\0\0\x07\x07\x04zzzz\x82\x03z\x01\0", 16));
  }
  frame += ip;
  frame += std::string("\x04\x00\x00\x50\0\0\0\0\0\0\0\0\x80\x02\0\0\0\0\0\0", 20);
  frame += std::string("\x01\x02\x04\x23\x28\x03\x03\x07\x02\x04\x10\x00", 12);
  frame += std::string(payload, 'p');
  mend(frame);
  return frame;
}

std::string mutate(std::string frame, e2::Random& random, size_t reach) {
  for (uint32_t i = 0; i <= random.below(3) && !frame.empty(); ++i) {
    const size_t at = random.below(std::min(frame.size(), reach));
    switch (random.below(5)) {
      case 0:
        frame[at] = static_cast<char>(random.below(256));
        break;
      case 1:
        frame[at] ^= static_cast<char>(1 << random.below(8));
        break;
      case 2:
        frame.erase(at, 1 + random.below(8));
        break;
      case 3:
        frame.insert(at, 1 + random.below(8), static_cast<char>(random.below(256)));
        break;
      default:
        frame.resize(random.below(frame.size()));
    }
  }
  if (random.below(4) != 0) mend(frame);
  return frame;
}

}  // namespace

TEST_CASE("mutated packets through PathMtu: what leaves fits, and all are accounted for") {
  e2::Random random;
  for (const uint32_t mtu : {68U, 77U, 576U, 1400U}) {
    Packets whole;
    for (const bool ipv6 : {false, true}) {
      for (const int tags : {0, 1, 8}) {
        for (const uint32_t payload : {0U, 40U, 1230U, 1500U, 1800U}) {
          whole.push_back(packet(ipv6, tags, payload, false));
          whole.push_back(packet(ipv6, tags, payload, true));
        }
      }
    }
    Packets mutants;
    for (int i = 0; i < 6000; ++i) {
      mutants.push_back(mutate(whole[random.below(whole.size())], random, 120));
    }
    const Args args = map({{"mtu", uint64_t{mtu}}, {"mtu6", 1280}, {"errors_per_second", 1000000}});
    Outcome outcome = run("PathMtu", args, mutants);
    uint64_t starts = 0;  // of packets that came, whole or as their first piece
    for (const std::string& frame : outcome.out[0]) {
      const e2::Headers h = parse(frame);
      CHECK(h.ip_total_len <= (h.ip_version == 6 ? 1280 : mtu));
      CHECK(frame.size() <= 2048);
    }
    for (const std::string& frame : outcome.out[1]) {
      const e2::Headers h = parse(frame);
      CHECK(frame.size() == size_t{h.l3_off} + h.ip_total_len);
      CHECK(h.ip_total_len <= (h.ip_version == 6 ? 1280 : 576));
      CHECK(e2::l4_checksum_ok(reinterpret_cast<const uint8_t*>(frame.data()), h));
    }
    CHECK(outcome.out[1].size() > 300);
    CHECK(outcome.dropped > 300);
    // One at a time, each leaves, or is dropped, or becomes an error.
    for (int i = 0; i < 300; ++i) {
      Outcome one = run("PathMtu", args, {mutants[static_cast<size_t>(i)]});
      starts += !one.out[0].empty();
      CHECK(!one.out[0].empty() + one.out[1].size() + one.dropped == 1);
    }
    CHECK(starts > 50);
  }
}

TEST_CASE("every option of 4 bytes in the headers of IPv4 and TCP") {
  const std::string whole = packet(false, 0, 1500, false);
  for (const size_t at : {34, 46, 70, 78}) {
    Packets packets;
    for (const int kind : {0, 1, 2, 7, 0x82, 0x94, 0xff}) {
      for (int len = 0; len < 256; ++len) {
        std::string frame = whole;
        frame[at] = static_cast<char>(kind);
        frame[at + 1] = static_cast<char>(len);
        mend(frame);
        packets.push_back(frame);
      }
    }
    Outcome outcome = run("PathMtu", map({{"mtu", 1500}}), packets);
    CHECK(outcome.out[0].size() + 2 * outcome.dropped == 2 * packets.size());
  }
}

TEST_CASE("mutated solicitations through NeighborResponder: answered or dropped") {
  std::string frame(12, '\x02');
  frame += std::string("\x86\xdd\x60\0\0\0\0\x20\x3a\xff", 10) + std::string(16, '\x20');
  frame += std::string("\xff\x02\0\0\0\0\0\0\0\0\0\x01\xff\x20\x20\x20", 16);
  frame += std::string("\x87\0\0\0\0\0\0\0", 8) + std::string(16, '\x20');
  frame += std::string("\x01\x01\x02\x02\x02\x02\x02\x02", 8);
  e2::Random random;
  Packets mutants;
  const auto sum = [](std::string& made) {
    const e2::Headers h = parse(made);
    const uint32_t at = e2::l4_checksum_off(h);
    auto* const data = reinterpret_cast<uint8_t*>(made.data());
    if (at != 0) e2::store_be16(data + at, e2::l4_checksum(data, h));
  };
  for (int i = 0; i < 8000; ++i) {
    mutants.push_back(mutate(frame, random, 120));
    sum(mutants.back());
  }
  Outcome outcome =
      run("NeighborResponder", map({{"ip", "::/0"}, {"mac_addr", "02:00:00:00:00:01"}}), mutants);
  CHECK(outcome.out[0].size() + outcome.dropped == mutants.size());
  CHECK(outcome.out[0].size() > 500);
  CHECK(outcome.dropped > 500);
  for (const std::string& made : outcome.out[0]) {
    const e2::Headers h = parse(made);
    CHECK(made.size() == size_t{h.l2_len} + 72);
    CHECK(e2::l4_checksum_ok(reinterpret_cast<const uint8_t*>(made.data()), h));
  }
}
