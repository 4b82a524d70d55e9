// SPDX-License-Identifier: BSD-3-Clause
// TunnelDecap, fed with what TunnelEncap makes and then with the same in thousands of mutations:
// bytes changed, cut out, put in, lengths and options that lie. Checksums are left out or mended,
// so that the mutations reach the parser behind them. What is checked is that no packet is lost or
// made up and, under sanitizers, that nothing is read or written out of bounds.
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

Args options(std::initializer_list<int> sizes) {
  Args::List list;
  for (const int size : sizes) {
    const int type = static_cast<int>(list.size()) * 3;
    list.push_back(map({{"attr_name", "a" + std::to_string(type)},
                        {"size", size},
                        {"type", type},
                        {"critical", type == 3}}));
  }
  return list;
}

Packets run(const char* module_class, const Args& args, const Packets& packets, uint64_t& drops) {
  e2::Engine engine(8192, 2048);
  const e2::Status made = engine.create_module("m", module_class, args);
  REQUIRE_MESSAGE(made.ok(), made.message);
  std::map<int, Packets> out;
  REQUIRE(engine.run_packets("m", 0, packets, out).ok());
  Args stats;
  REQUIRE(engine.module_command("m", "e2_stats", {}, stats).ok());
  for (const auto& drop : stats["drops"].as_map()) drops += drop.second.as_uint();
  REQUIRE(engine.reset_modules().ok());
  CHECK(engine.mempool()["in_use"].as_uint() == 0);
  Packets all;
  for (auto& gate : out) all.insert(all.end(), gate.second.begin(), gate.second.end());
  return all;
}

// Right checksums wherever they can be known.
void mend(std::string& frame) {
  auto* const data = reinterpret_cast<uint8_t*>(frame.data());
  const e2::Headers h = e2::parse_headers(data, static_cast<uint32_t>(frame.size()));
  if (h.ip_version == 4) {
    e2::store_be16(data + h.l3_off + 10, e2::ipv4_checksum(data + h.l3_off, h.l3_len));
  }
  const uint32_t at = e2::l4_checksum_off(h);
  if (at != 0) e2::store_be16(data + at, e2::l4_checksum(data, h));
}

struct Dice {
  e2::Random random;
  uint32_t below(size_t range) { return random.below(range); }
  char byte() { return static_cast<char>(random.next() >> 56); }
};

std::string mutate(std::string frame, Dice& dice) {
  const uint32_t changes = 1 + dice.below(4);
  for (uint32_t i = 0; i < changes && !frame.empty(); ++i) {
    // Mostly where the headers are.
    const size_t reach = dice.below(4) == 0 ? frame.size() : std::min<size_t>(frame.size(), 120);
    const size_t at = dice.below(reach);
    switch (dice.below(6)) {
      case 0:
        frame[at] = dice.byte();
        break;
      case 1:
        frame[at] ^= static_cast<char>(1 << dice.below(8));
        break;
      case 2:
        frame[at] = dice.below(2) == 0 ? '\0' : '\xff';
        break;
      case 3:
        frame.erase(at, 1 + dice.below(8));
        break;
      case 4:
        frame.insert(at, 1 + dice.below(8), dice.byte());
        break;
      default:
        frame.resize(at);
    }
  }
  if (dice.below(3) != 0) mend(frame);
  return frame;
}

}  // namespace

TEST_CASE("mutated tunnel frames: none lost, none made up, and most are refused") {
  const Args sizes[] = {options({}), options({4}), options({4, 4, 4, 4}), options({1, 32, 6})};
  Packets inner;
  for (const size_t len : {14, 15, 60, 61, 200, 1500}) inner.emplace_back(len, '\x45');
  for (const bool ipv6 : {false, true}) {
    for (const bool zero_checksum : {false, true}) {
      for (const Args& carried : sizes) {
        const Args encap = map({{"src_mac", "02:00:00:00:00:01"},
                                {"dst_mac", "02:00:00:00:00:02"},
                                {"src_ip", ipv6 ? "2001:db8::1" : "192.0.2.1"},
                                {"dst_ip", ipv6 ? "2001:db8::2" : "192.0.2.2"},
                                {"vni", 7},
                                {"zero_checksum", zero_checksum},
                                {"options", carried}});
        uint64_t drops = 0;
        const bool fits = !ipv6 || carried.as_list().size() != 3;
        if (!fits) continue;
        const Packets frames = run("TunnelEncap", encap, inner, drops);
        REQUIRE(drops == 0);
        REQUIRE(frames.size() == inner.size());
        const Args decap = map({{"edges", map({{"7", 1}})},
                                {"default_gate", 2},
                                {"zero_checksum", zero_checksum},
                                {"options", carried}});
        CHECK(run("TunnelDecap", decap, frames, drops) == inner);
        REQUIRE(drops == 0);
        Dice dice;
        Packets mutants;
        for (int i = 0; i < 1500; ++i) {
          mutants.push_back(mutate(frames[dice.below(frames.size())], dice));
        }
        const Packets passed = run("TunnelDecap", decap, mutants, drops);
        CHECK(passed.size() + drops == mutants.size());
        CHECK(drops > mutants.size() / 4);
        CHECK(!passed.empty());
      }
    }
  }
}

TEST_CASE("every list of options of 3 words over a few hostile heads") {
  const Args decap = map({{"edges", map({{"7", 0}})}, {"options", options({4, 8})}});
  const std::string heads[] = {{"\xff\xe2\x00\x01", 4}, {"\xff\xe2\x00\x00", 4},
                               {"\xff\xe2\x83\x02", 4}, {"\xff\xe2\x03\x1f", 4},
                               {"\x01\x02\x80\x00", 4}, {"\x01\x02\x00\x01", 4}};
  Packets frames;
  for (const std::string& a : heads) {
    for (const std::string& b : heads) {
      for (const std::string& c : heads) {
        for (const int words : {0, 1, 2, 3, 4, 63}) {
          std::string frame(12, '\x02');
          frame += std::string("\x08\x00\x45\x00\x00\x00\x00\x00\x40\x00\x40\x11\x00\x00", 14);
          frame += std::string("\xc0\x00\x02\x01\xc0\x00\x02\x02", 8);
          frame += std::string("\xc0\x00\x17\xc1\x00\x00\x00\x00", 8);
          frame += static_cast<char>(words);
          frame += std::string("\x00\x65\x58\x00\x00\x07\x00", 7) + a + b + c;
          frame += std::string(20, '\x01');
          auto* const data = reinterpret_cast<uint8_t*>(frame.data());
          e2::store_be16(data + 16, static_cast<uint16_t>(frame.size() - 14));
          e2::store_be16(data + 38, static_cast<uint16_t>(frame.size() - 34));
          mend(frame);
          frames.push_back(frame);
        }
      }
    }
  }
  uint64_t drops = 0;
  const Packets passed = run("TunnelDecap", decap, frames, drops);
  CHECK(passed.size() + drops == frames.size());
  CHECK(!passed.empty());
  CHECK(drops > 0);
}
