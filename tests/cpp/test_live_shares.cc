// SPDX-License-Identifier: BSD-3-Clause
// Shares that change while a worker picks and charges. `make sanitize` runs this file under
// ThreadSanitizer, too.
#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "engine/traffic_class.h"

TEST_CASE("shares change under a running worker, which goes by the last of them") {
  using e2::Policy;
  using e2::TrafficClass;
  constexpr int64_t kChanges = 5000;
  constexpr uint64_t kRuns = 60'000;
  TrafficClass fair("fair", Policy::kWeightedFair);
  std::vector<std::unique_ptr<TrafficClass>> leaves;
  for (int i = 0; i < 3; ++i) {
    leaves.push_back(std::make_unique<TrafficClass>("leaf", Policy::kLeaf));
    fair.add_child(leaves.back().get(), 0, 1);
  }
  std::vector<uint64_t> counts(leaves.size());
  const auto run = [&](uint64_t now) {
    TrafficClass* leaf = fair.pick(now);
    if (leaf == nullptr) return;
    leaf->account({1, 10, 32, 0}, now);
    for (size_t i = 0; i < leaves.size(); ++i) counts[i] += leaves[i].get() == leaf;
  };
  std::atomic<bool> started{false};
  std::atomic<bool> changed{false};
  std::thread worker([&] {
    uint64_t now = 1;
    while (!changed.load(std::memory_order_relaxed)) {
      run(++now);
      started.store(true, std::memory_order_relaxed);
    }
    counts.assign(leaves.size(), 0);
    for (uint64_t i = 0; i < kRuns; ++i) run(++now);
  });
  while (!started.load(std::memory_order_relaxed)) std::this_thread::yield();
  for (int64_t change = 1; change <= kChanges; ++change) {
    for (size_t i = 0; i < leaves.size(); ++i) {
      fair.set_share(leaves[i].get(), change == kChanges ? 1 << i : 1 + change % 9);
    }
  }
  changed = true;
  worker.join();
  for (size_t i = 0; i < leaves.size(); ++i) {
    CHECK(fair.children()[i].share == 1 << i);
    CHECK(static_cast<double>(counts[i]) ==
          doctest::Approx(static_cast<double>(kRuns << i) / 7).epsilon(0.01));
  }
}
