// SPDX-License-Identifier: BSD-3-Clause
// FlowTable against std::map, in tables so small that buckets overflow all the time, and FlowSteer
// under hostile frames, random times and commands: no packet lost, no flow torn from its gate.
#include <doctest/doctest.h>

#include <array>
#include <map>
#include <random>

#include "engine/engine.h"
#include "modules/flow_table.h"

namespace {

using e2::Args;
using e2::FlowKey;
using e2::FlowTable;

using Words = std::array<uint64_t, 5>;

FlowKey key_of(uint32_t number) {
  const bool ipv6 = number % 3 == 0;
  FlowKey key = {};
  key.words[0] = number % 7 | (ipv6 ? 6ULL : 4ULL) << 40;
  key.words[1] = number;
  if (ipv6) key.words[1 + number % 4] = number;
  return key;
}

Words words_of(const FlowKey& key) {
  Words words;
  std::copy_n(key.words, 5, words.begin());
  return words;
}

uint32_t id_of(const FlowKey& key) { return ~static_cast<uint32_t>(key.words[1] + key.words[0]); }

// One to add, mostly of a flow that no frame is of, and one to remove.
Args random_exceptions(std::mt19937& random) {
  const auto flow = [&] {
    Args args;
    args.set("src", "0.0.1." + std::to_string(random() % 8));
    args.set("dst", std::string("0.1.0.0"));
    args.set("proto", uint64_t{17});
    return args;
  };
  Args exception;
  exception.set("flow", flow());
  exception.set("gate", static_cast<uint64_t>(random() % 4));
  Args args;
  if (random() % 3 != 0) args.set("add_exceptions", Args::List{exception});
  if (random() % 3 == 0) args.set("remove_exceptions", Args::List{flow()});
  return args;
}

}  // namespace

TEST_CASE("a table of flows, against std::map") {
  std::mt19937 random(7);
  for (const uint32_t capacity : {1u, 3u, 8u, 9u, 16u, 17u, 100u, 1000u}) {
    CAPTURE(capacity);
    FlowTable table;
    REQUIRE(table.init(capacity, random()));
    std::map<Words, uint32_t> flows;
    uint64_t wrong = 0;
    uint64_t full = 0;
    for (int step = 0; step < 40000; ++step) {
      const FlowKey key = key_of(random() % (2 * capacity + 4));
      const uint64_t place = table.place(key);
      const auto known = flows.find(words_of(key));
      const uint32_t at = table.find(key, place);
      wrong += at != (known == flows.end() ? FlowTable::kNone : known->second);
      wrong += at != FlowTable::kNone && table.id(at) != id_of(key);
      const uint32_t candidate = table.first_candidate(place);
      wrong += candidate != FlowTable::kNone && candidate >= table.end();
      wrong += table.size() != flows.size() || table.full() != (flows.size() == capacity);
      const bool grow = random() % 200 < 100 + 80 * ((step / 500) % 2);
      if (known == flows.end() && grow) {
        full += table.full();
        if (!table.full()) flows[words_of(key)] = table.add(key, place, id_of(key));
      } else if (known != flows.end() && !grow && step % 3 != 0) {
        table.remove(at);
        flows.erase(known);
      } else if (known != flows.end()) {
        // Another key for the same entry, or none where it is taken.
        const FlowKey other = key_of(random() % (2 * capacity + 4));
        if (!flows.emplace(words_of(other), at).second) continue;
        table.rekey(at, other);
        table.set_id(at, id_of(other));
        wrong += table.find(key, place) != FlowTable::kNone;
        flows.erase(words_of(key));
      }
    }
    CHECK(wrong == 0);
    CHECK(full > 0);
    for (const auto& flow : flows) {
      FlowKey key;
      std::copy(flow.first.begin(), flow.first.end(), key.words);
      wrong += table.find(key, table.place(key)) != flow.second;
      table.remove(flow.second);
      wrong += table.find(key, table.place(key)) != FlowTable::kNone;
    }
    CHECK(wrong == 0);
    CHECK(table.size() == 0);
  }
}

TEST_CASE("neighbouring flows spread over the buckets") {
  FlowTable table;
  REQUIRE(table.init(1 << 16, 1));
  uint64_t missed = 0;
  for (uint32_t i = 0; i < 1 << 16; ++i) {
    FlowKey key = {};
    key.words[0] = i | 17ULL << 32 | 4ULL << 40;
    key.words[1] = 0x0100000a0200000aULL;
    const uint64_t place = table.place(key);
    const uint32_t at = table.add(key, place, i);
    missed += table.first_candidate(place) != at;
  }
  CHECK(missed < (1 << 16) / 20);  // a few per cent are in the next bucket, or share a tag
}

TEST_CASE("FlowSteer under random packets, times and commands loses none and tears no flow") {
  std::mt19937 random(11);
  for (const uint32_t kind : {0u, 1u, 2u, 3u}) {
    e2::Engine engine(2048, 2048);
    Args range;
    range.set("start", 0);
    range.set("end", uint64_t{1} << 32);
    range.set("gate", 0);
    Args args;
    args.set("ranges", Args::List{range});
    args.set("symmetric", (kind & 1) != 0);
    args.set("id_attr", std::string((kind & 2) != 0 ? "id" : ""));
    args.set("max_flows", 64);
    args.set("timeout_ms", 100);
    args.set("linger_ms", 10);
    args.set("other_gate", 9);
    REQUIRE(engine.create_module("m", "FlowSteer", args).ok());
    uint64_t now = uint64_t{1} << 61;
    uint64_t sent = 0;
    uint64_t arrived = 0;
    uint32_t accepted = 0;
    uint32_t updates = 0;
    for (int step = 0; step < 600; ++step) {
      std::vector<std::string> frames(random() % 100);
      for (std::string& frame : frames) {
        frame.resize(random() % 90);
        for (char& byte : frame) byte = static_cast<char>(random() % 3);
        if (frame.size() > 24) {  // now and then something that is a flow
          frame.replace(
              12, 3,
              random() % 3 != 0 ? std::string("\x08\x00\x45", 3) : std::string("\x86\xdd\x60", 3));
          frame[17] = 60;
          frame[23] = random() % 2 != 0 ? 6 : 17;
          if (frame.size() > 48) {
            frame[46] = 0x50;
            frame[47] = static_cast<char>(random() % 32);
          }
        }
      }
      sent += frames.size();
      now += random() % 30'000'000;
      std::map<int, std::vector<std::string>> out;
      REQUIRE(engine.run_packets("m", 0, frames, out, now).ok());
      for (const auto& gate : out) arrived += gate.second.size();
      Args split;
      split.set("gate", static_cast<uint64_t>(random() % 4));
      split.set("new_gate", static_cast<uint64_t>(random() % 4));
      split.set("cut", static_cast<uint64_t>(random()));
      Args answer;
      accepted += engine.module_command("m", "split", split, answer).ok();
      updates += engine.module_command("m", "update", random_exceptions(random), answer).ok();
      Args status;
      REQUIRE(engine.module_command("m", "get_status", {}, status).ok());
      CHECK(status["flows"].as_uint() <= 64);
      CHECK(status["exceptions"].as_uint() <= status["flows"].as_uint());
    }
    CHECK(arrived == sent);
    CHECK(accepted > 50);
    CHECK(updates > 50);
  }
}
