// SPDX-License-Identifier: BSD-3-Clause
// Traffic classes on a virtual clock: what their policies promise about time.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

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

namespace {

// weighted_fair over leaves, by a scan instead of heaps.
class PlainFair {
 public:
  struct Entry {
    TrafficClass* leaf;
    double stride;
    double pass = 0;
    bool aside = true;
  };
  void add(TrafficClass* leaf, int64_t share) {
    entries_.push_back({leaf, (1 << 20) / static_cast<double>(share)});
  }
  TrafficClass* pick(uint64_t now) {
    std::vector<Entry*> returning;
    for (Entry& entry : entries_) {
      if (entry.aside && entry.leaf->pick(now) != nullptr) returning.push_back(&entry);
    }
    Entry* best = front(now);
    for (Entry* entry : returning) {
      entry->aside = false;
      if (best != nullptr) entry->pass = std::max(entry->pass, best->pass);
    }
    chosen_ = front(now);
    return chosen_ == nullptr ? nullptr : chosen_->leaf;
  }
  void charge(uint64_t used, uint64_t now) {
    if (used != 0) {
      chosen_->pass += chosen_->stride * static_cast<double>(used);
      return;
    }
    chosen_->aside = true;
    const Entry* next = front(now);
    chosen_->aside = false;
    if (next != nullptr && chosen_->pass <= next->pass) {
      chosen_->pass = std::nextafter(next->pass, HUGE_VAL);
    }
  }

 private:
  // Of those that are not aside; any in front of it that cannot run goes aside.
  Entry* front(uint64_t now) {
    for (;;) {
      Entry* best = nullptr;
      for (Entry& entry : entries_) {
        if (!entry.aside && (best == nullptr || entry.pass < best->pass)) best = &entry;
      }
      if (best == nullptr || best->leaf->pick(now) != nullptr) return best;
      best->aside = true;
    }
  }
  std::vector<Entry> entries_;
  Entry* chosen_ = nullptr;
};

}  // namespace

TEST_CASE("weighted_fair picks what a plain scan picks") {
  uint32_t state = 1;
  const auto random = [&state](uint32_t below) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
  };
  for (int children = 1; children <= 40; children += 3) {
    TrafficClass fair("fair", Policy::kWeightedFair);
    fair.set_resource(Resource::kPacket);
    PlainFair plain;
    std::vector<std::unique_ptr<TrafficClass>> leaves;
    for (int i = 0; i < children; ++i) {
      leaves.push_back(std::make_unique<TrafficClass>("leaf", Policy::kLeaf));
      const int64_t share = 1 + random(9);
      fair.add_child(leaves.back().get(), 0, share);
      plain.add(leaves.back().get(), share);
    }
    uint64_t now = 1;
    for (int step = 0; step < 3000; ++step) {
      now += random(2000);
      TrafficClass* expected = plain.pick(now);
      REQUIRE(fair.pick(now) == expected);
      if (expected == nullptr) continue;
      const uint64_t used = random(4) == 0 ? 0 : 1 + random(32);
      expected->account(packets(used), now);
      plain.charge(used, now);
      if (used == 0) {
        expected->back_off(now);
      } else {
        expected->found_work();
      }
    }
  }
}

TEST_CASE("removing a child of weighted_fair leaves the others their turns") {
  TrafficClass fair("fair", Policy::kWeightedFair);
  fair.set_resource(Resource::kPacket);
  std::vector<std::unique_ptr<TrafficClass>> leaves;
  for (int i = 0; i < 5; ++i) {
    leaves.push_back(std::make_unique<TrafficClass>("leaf", Policy::kLeaf));
    fair.add_child(leaves.back().get(), 0, 1);
  }
  const auto run = [&](int times) {
    std::vector<int> runs(leaves.size());
    for (int i = 0; i < times; ++i) {
      TrafficClass* leaf = fair.pick(1);
      REQUIRE(leaf != nullptr);
      leaf->account(packets(1), 1);
      for (size_t at = 0; at < leaves.size(); ++at) runs[at] += leaves[at].get() == leaf;
    }
    return runs;
  };
  CHECK(run(50) == std::vector<int>{10, 10, 10, 10, 10});
  fair.remove_child(leaves[1].get());
  CHECK(run(40) == std::vector<int>{10, 0, 10, 10, 10});
  fair.remove_child(leaves[4].get());
  CHECK(run(30) == std::vector<int>{10, 0, 10, 10, 0});
}

TEST_CASE("an overloaded queue holds a leaf back, and lets it go on") {
  TrafficClass fair("fair", Policy::kWeightedFair);
  TrafficClass turns("turns", Policy::kRoundRobin);
  TrafficClass held("held", Policy::kLeaf);
  TrafficClass other("other", Policy::kLeaf);
  fair.set_resource(Resource::kPacket);
  turns.add_child(&held, 0, 1);
  fair.add_child(&turns, 0, 1);
  fair.add_child(&other, 0, 1);
  held.pressure = std::make_shared<std::atomic<int32_t>>(1);
  CHECK(held.blocked());
  for (int i = 0; i < 100; ++i) {
    REQUIRE(fair.pick(5) == &other);
    other.account(packets(32), 5);
  }
  *held.pressure = 0;
  CHECK_FALSE(held.blocked());
  int runs_of_held = 0;
  for (int i = 0; i < 100; ++i) {
    TrafficClass* leaf = fair.pick(5);
    runs_of_held += leaf == &held;
    leaf->account(packets(32), 5);
  }
  CHECK(runs_of_held == 50);
}
