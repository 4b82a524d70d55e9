// SPDX-License-Identifier: BSD-3-Clause
// ReturnTable under threads that write and read it at once; `make sanitize` runs this file under
// ThreadSanitizer, too. What is found must be whole and the flow's own.
#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "modules/return_table.h"

namespace {

using e2::ReturnTable;
using Flow = ReturnTable::Flow;

struct Encrypted {
  uint8_t bytes[16];
};

// As a PRF's, by the number of a flow.
Encrypted encrypted(uint64_t number) {
  Encrypted end = {};
  const uint64_t words[2] = {e2::flow_mix(number + 1), e2::flow_mix(~number)};
  std::memcpy(end.bytes, words, sizeof words);
  return end;
}

Flow flow(uint64_t number) {
  Flow clear = {};
  for (size_t at = 0; at < 16; at += 8) {
    std::memcpy(clear.src + at, &number, sizeof number);
    std::memcpy(clear.dst + at, &number, sizeof number);
  }
  clear.sport = static_cast<uint16_t>(number);
  clear.dport = static_cast<uint16_t>(number >> 1);
  clear.protocol = 17;
  clear.ipv6 = number % 2 != 0;
  return clear;
}

bool same(const Flow& a, const Flow& b) {
  return std::memcmp(a.src, b.src, 16) == 0 && std::memcmp(a.dst, b.dst, 16) == 0 &&
         a.sport == b.sport && a.dport == b.dport && a.ipv6 == b.ipv6;
}

void note(ReturnTable& table, uint64_t number, uint16_t now) {
  const Encrypted end = encrypted(number);
  if (!table.noted(end.bytes, now)) table.note(end.bytes, flow(number), now);
}

bool find(const ReturnTable& table, uint64_t number, uint16_t now, Flow& found) {
  const Encrypted end = encrypted(number);
  return table.find(end.bytes, 17, now, found);
}

}  // namespace

TEST_CASE("as many flows as it is made for have room, and find back") {
  ReturnTable table;
  REQUIRE(table.init(4096, 180'000));
  for (uint64_t number = 0; number < 4096; ++number) note(table, number, 65500);
  CHECK(table.flows(65500) + table.displaced() == 4096);
  CHECK(table.displaced() < 8);
  uint64_t lost = 0;
  for (uint64_t number = 0; number < 4096; ++number) {
    Flow found;
    const bool known = find(table, number, 100, found);  // the clock has gone round
    lost += !known;
    if (known) CHECK(same(found, flow(number)));
  }
  CHECK(lost == table.displaced());
  Flow found;
  CHECK_FALSE(find(table, 9, 200, found));  // 236 ticks later
  CHECK(table.flows(200) == 0);
  // What has ended makes room without being counted.
  const uint64_t displaced = table.displaced();
  for (uint64_t number = 5000; number < 7000; ++number) note(table, number, 300);
  CHECK(table.displaced() == displaced);
}

TEST_CASE("a flow is known by what its prefix is not") {
  ReturnTable table;
  REQUIRE(table.init(64, 180'000));
  note(table, 7, 1);
  Encrypted end = encrypted(7);
  Flow found;
  for (size_t at = 0; at < sizeof end.bytes; ++at) {
    end.bytes[at] ^= 1;
    CHECK(table.find(end.bytes, 17, 1, found) == (at < 4));
    end.bytes[at] ^= 1;
  }
  CHECK_FALSE(table.find(end.bytes, 6, 1, found));
}

TEST_CASE("threads that note flows in each other's way, and threads that look them up") {
  ReturnTable table;
  REQUIRE(table.init(64, 180'000));  // so few that they take each other's places
  constexpr uint64_t kFlows = 1000;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint64_t> seen{0};
  std::vector<std::thread> threads;
  for (uint64_t first = 0; first < 2; ++first) {
    threads.emplace_back([&, first] {
      for (uint64_t i = 0; i < 100'000; ++i) {
        note(table, (i * 7 + first) % kFlows, static_cast<uint16_t>(i / 1000));
      }
      stop = true;
    });
    threads.emplace_back([&] {
      for (uint64_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
        Flow found;
        if (!find(table, i % kFlows, 50, found)) continue;
        ++seen;
        if (!same(found, flow(i % kFlows))) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(table.displaced() > 0);
}
