// SPDX-License-Identifier: BSD-3-Clause
// Traffic classes on a virtual clock: what their policies promise about time.
#include <doctest/doctest.h>

#include <algorithm>

#include "engine/traffic_class.h"

namespace {

using e2::Policy;
using e2::Resource;
using e2::TrafficClass;

constexpr double kHz = 1000;  // ticks per second

e2::Usage packets(uint64_t count) { return {1, 10, count, count * 512}; }

}  // namespace

TEST_CASE("a token bucket never holds more than its burst") {
  TrafficClass limit("limit", Policy::kRateLimit);
  TrafficClass leaf("leaf", Policy::kLeaf);
  limit.set_resource(Resource::kPacket);
  limit.set_limit(1000, 50, kHz);  // one packet a tick
  limit.add_child(&leaf, 0, 1);
  uint64_t now = 1;
  REQUIRE(limit.pick(now) == &leaf);
  leaf.account(packets(1), now);
  now += 1'000'000;  // time enough for a million tokens
  uint64_t sent = 0;
  while (limit.pick(now) != nullptr) {
    leaf.account(packets(10), now);
    sent += 10;
    REQUIRE(sent <= 100);
  }
  CHECK(sent == 60);  // the burst, and the run that overdraws it
  CHECK(limit.pick(now + 9) == nullptr);
  CHECK(limit.pick(now + 10) == &leaf);
}

TEST_CASE("a class that could not run earns no credit") {
  TrafficClass fair("fair", Policy::kWeightedFair);
  TrafficClass steady("steady", Policy::kLeaf);
  TrafficClass limit("limit", Policy::kRateLimit);
  TrafficClass away("away", Policy::kLeaf);
  fair.set_resource(Resource::kPacket);
  limit.set_resource(Resource::kPacket);
  limit.set_limit(0, 0, kHz);  // stopped
  limit.add_child(&away, 0, 1);
  fair.add_child(&steady, 0, 1);
  fair.add_child(&limit, 0, 1);
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(fair.pick(1) == &steady);
    steady.account(packets(32), 1);
  }
  limit.set_limit(1'000'000'000, 1'000'000, kHz);
  int runs_of_away = 0;
  uint64_t now = 1'000;
  for (int i = 0; i < 100; ++i, ++now) {
    TrafficClass* leaf = fair.pick(now);
    REQUIRE(leaf != nullptr);
    runs_of_away += leaf == &away;
    leaf->account(packets(32), now);
  }
  CHECK(runs_of_away >= 49);
  CHECK(runs_of_away <= 51);
}

TEST_CASE("an idle leaf steps aside, for longer each time, and not once it finds work") {
  TrafficClass leaf("leaf", Policy::kLeaf);
  uint64_t now = 1000;
  uint64_t last = 0;
  for (int i = 0; i < 10; ++i) {
    leaf.back_off(now);
    uint64_t wait = 0;
    while (leaf.pick(now + wait) == nullptr) ++wait;
    CHECK(wait >= last);
    last = wait;
    now += wait;
  }
  CHECK(last == 1 << 14);
  leaf.found_work();
  leaf.back_off(now);
  CHECK(leaf.pick(now + (1 << 9)) == &leaf);
}
