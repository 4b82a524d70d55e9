// SPDX-License-Identifier: BSD-3-Clause
// Traffic classes on a worker that polls, and shares that change, on a virtual clock.
#include <doctest/doctest.h>

#include <atomic>
#include <memory>

#include "engine/traffic_class.h"

namespace {

using e2::Policy;
using e2::Resource;
using e2::TrafficClass;

// A worker that polls, on a virtual clock: a leaf with work takes 1000 ticks and any other 10.
class Poller {
 public:
  explicit Poller(TrafficClass& root) : root_(root) {}
  // Runs for so many ticks; `has_work(leaf)` tells whether its next run finds some.
  template <typename HasWork>
  void run(uint64_t ticks, HasWork has_work) {
    const uint64_t end = now_ + ticks;
    while (now_ < end) {
      TrafficClass* leaf = root_.pick(now_);
      if (leaf == nullptr) {
        ++now_;
        ++asleep_;
        continue;
      }
      const bool work = has_work(leaf);
      const uint64_t used = work ? 1000 : 10;
      now_ += used;
      if (work) {
        leaf->account_work({1, used, 32, 32 * 512}, now_);
      } else {
        leaf->account_poll({1, used, 0, 0}, now_);
      }
    }
  }
  uint64_t now() const { return now_; }
  uint64_t asleep() const { return asleep_; }

 private:
  TrafficClass& root_;
  uint64_t now_ = 1;
  uint64_t asleep_ = 0;
};

double cycles(const TrafficClass& tc) { return static_cast<double>(tc.usage()[1]); }

struct FairByCycles : TrafficClass {
  explicit FairByCycles(const char* name) : TrafficClass(name, Policy::kWeightedFair) {
    set_resource(Resource::kCycle);
  }
};

constexpr uint64_t kLong = 10'000'000;

}  // namespace

TEST_CASE("polling: a share of cycles that finds no packets is spent on looking for them") {
  FairByCycles fair("fair");
  TrafficClass starved("starved", Policy::kLeaf);
  TrafficClass fed("fed", Policy::kLeaf);
  fair.add_child(&starved, 0, 3);
  fair.add_child(&fed, 0, 1);
  Poller worker(fair);
  worker.run(kLong, [&](TrafficClass* leaf) { return leaf == &fed; });
  CHECK(cycles(starved) / cycles(fed) == doctest::Approx(3).epsilon(0.01));
  CHECK(worker.asleep() == 0);
}

TEST_CASE("polling: a silence changes nobody's share, however long and often it was") {
  FairByCycles fair("fair");
  TrafficClass left("left", Policy::kLeaf);
  TrafficClass right("right", Policy::kLeaf);
  fair.add_child(&left, 0, 3);
  fair.add_child(&right, 0, 1);
  Poller worker(fair);
  const auto nobody = [](TrafficClass*) { return false; };
  for (int i = 0; i < 20; ++i) {
    worker.run(kLong / 10, nobody);
    const double left_before = cycles(left);
    const double right_before = cycles(right);
    worker.run(kLong / 10, [](TrafficClass*) { return true; });
    CHECK((cycles(left) - left_before) / (cycles(right) - right_before) ==
          doctest::Approx(3).epsilon(0.03));
  }
  CHECK(worker.asleep() > kLong);
  // Work that is there one time in five hundred: between two such runs all is silent for a while.
  const double left_before = cycles(left);
  const double right_before = cycles(right);
  const uint64_t asleep_before = worker.asleep();
  uint64_t next = 0;
  worker.run(20 * kLong, [&](TrafficClass* leaf) {
    if (leaf != &right || worker.now() < next) return false;
    next = worker.now() + 20'000;
    return true;
  });
  CHECK(worker.asleep() > asleep_before + kLong);
  CHECK((cycles(left) - left_before) / (cycles(right) - right_before) ==
        doctest::Approx(3).epsilon(0.1));
}

TEST_CASE("polling: a silent group lets a lower priority run, one with work does not") {
  TrafficClass root("root", Policy::kPriority);
  FairByCycles fair("fair");
  TrafficClass left("left", Policy::kLeaf);
  TrafficClass right("right", Policy::kLeaf);
  TrafficClass below("below", Policy::kLeaf);
  root.add_child(&fair, 0, 1);
  root.add_child(&below, 1, 1);
  fair.add_child(&left, 0, 1000);
  fair.add_child(&right, 0, 1);
  Poller worker(root);
  worker.run(kLong, [&](TrafficClass* leaf) { return leaf == &below; });
  CHECK(cycles(below) > 0.97 * kLong);
  const double before = cycles(below);
  worker.run(kLong, [&](TrafficClass* leaf) { return leaf != &left; });
  CHECK(cycles(below) - before < 0.01 * kLong);
}

TEST_CASE("polling: a nested class polls for its siblings and is silent as a whole") {
  TrafficClass root("root", Policy::kPriority);
  FairByCycles outer("outer");
  FairByCycles inner("inner");
  TrafficClass turns("turns", Policy::kRoundRobin);
  TrafficClass limit("limit", Policy::kRateLimit);
  TrafficClass fed("fed", Policy::kLeaf);
  TrafficClass below("below", Policy::kLeaf);
  TrafficClass a("a", Policy::kLeaf);
  TrafficClass b("b", Policy::kLeaf);
  TrafficClass c("c", Policy::kLeaf);
  TrafficClass d("d", Policy::kLeaf);
  limit.set_resource(Resource::kPacket);
  limit.set_limit(1'000'000, 1'000'000, 1000);
  root.add_child(&outer, 0, 1);
  root.add_child(&below, 1, 1);
  outer.add_child(&inner, 0, 3);
  outer.add_child(&fed, 0, 1);
  inner.add_child(&a, 0, 2);
  inner.add_child(&turns, 0, 1);
  turns.add_child(&b, 0, 1);
  turns.add_child(&limit, 0, 1);
  limit.add_child(&c, 0, 1);
  Poller worker(root);
  worker.run(kLong, [&](TrafficClass* leaf) { return leaf == &fed; });
  CHECK(cycles(inner) / cycles(fed) == doctest::Approx(3).epsilon(0.01));
  CHECK(cycles(a) / cycles(turns) == doctest::Approx(2).epsilon(0.01));
  CHECK(cycles(b) / cycles(c) == doctest::Approx(1).epsilon(0.01));
  CHECK(cycles(below) == 0);
  worker.run(kLong, [&](TrafficClass* leaf) { return leaf == &below; });
  CHECK(cycles(below) > 0.97 * kLong);
  // What a leaf leaves unused below a priority class goes to the next priority at once.
  TrafficClass order("order", Policy::kPriority);
  inner.remove_child(&turns);
  turns.remove_child(&b);
  inner.add_child(&order, 0, 1);
  order.add_child(&b, 0, 1);
  order.add_child(&d, 1, 1);
  worker.run(kLong, [&](TrafficClass* leaf) { return leaf == &d; });
  CHECK(cycles(d) > 0.97 * cycles(order));
  CHECK(cycles(d) > 0.24 * kLong);
}

TEST_CASE("polling: by packets, or below no weighted_fair class, an idle leaf steps aside") {
  TrafficClass fair("fair", Policy::kWeightedFair);
  TrafficClass idle("idle", Policy::kLeaf);
  TrafficClass fed("fed", Policy::kLeaf);
  fair.set_resource(Resource::kPacket);
  fair.add_child(&idle, 0, 3);
  fair.add_child(&fed, 0, 1);
  Poller worker(fair);
  worker.run(kLong, [&](TrafficClass* leaf) { return leaf == &fed; });
  CHECK(cycles(fed) > 0.99 * kLong);
}

TEST_CASE("polling: a leaf that is held back holds up no silence and earns no credit") {
  TrafficClass root("root", Policy::kPriority);
  FairByCycles fair("fair");
  TrafficClass held("held", Policy::kLeaf);
  TrafficClass other("other", Policy::kLeaf);
  TrafficClass below("below", Policy::kLeaf);
  root.add_child(&fair, 0, 1);
  root.add_child(&below, 1, 1);
  fair.add_child(&held, 0, 1);
  fair.add_child(&other, 0, 1);
  held.pressure = std::make_shared<std::atomic<int32_t>>(1);
  Poller worker(root);
  worker.run(kLong, [&](TrafficClass* leaf) { return leaf == &below; });
  CHECK(cycles(below) > 0.97 * kLong);
  worker.run(kLong, [&](TrafficClass* leaf) { return leaf == &other; });
  CHECK(cycles(other) > 0.97 * kLong);
  *held.pressure = 0;
  const double before = cycles(other);
  worker.run(kLong, [&](TrafficClass*) { return true; });
  CHECK(cycles(other) - before == doctest::Approx(0.5 * kLong).epsilon(0.01));
}

TEST_CASE("a share changes without any of what was earned by the old one") {
  FairByCycles fair("fair");
  TrafficClass left("left", Policy::kLeaf);
  TrafficClass right("right", Policy::kLeaf);
  fair.add_child(&left, 0, 1);
  fair.add_child(&right, 0, 1);
  Poller worker(fair);
  const auto all = [](TrafficClass*) { return true; };
  double left_then = 0;
  double right_then = 0;
  for (const int64_t share : {1, 3, 7, 2}) {
    fair.set_share(&left, share);
    worker.run(kLong, all);
    CHECK((cycles(left) - left_then) / (cycles(right) - right_then) ==
          doctest::Approx(static_cast<double>(share)).epsilon(0.01));
    left_then = cycles(left);
    right_then = cycles(right);
  }
}
