// SPDX-License-Identifier: BSD-3-Clause
// Events from many threads: none is made up, lost ones are counted, and the engine's log numbers
// them in the order of their times.
#include <doctest/doctest.h>

#include <set>
#include <thread>
#include <vector>

#include "engine/engine.h"

namespace {

using e2::Args;

// Tells of every packet, and as often of nothing.
class Teller final : public e2::Module {
 public:
  e2::Status init(e2::Host&, const Args&) override {
    silence_ = add_event("silence", {});
    packet_ = add_event("packet", {"bytes", "number"});
    return {};
  }
  void process(e2::Context& ctx, e2::Batch& batch, e2::Gate) override {
    for (const e2::Packet* packet : batch) {
      post_event(packet_, {packet->len(), ++number_});
      post_event(silence_, {});
    }
    emit(ctx, batch);
  }

 private:
  uint32_t silence_ = 0;
  uint32_t packet_ = 0;
  uint64_t number_ = 0;
};

const e2::ModuleClass kTeller = {"Teller", "teller", "tells", "",
                                 1,        1,        {},      e2::make_module<Teller>};

}  // namespace

TEST_CASE("a ring takes from many threads and counts what it refuses") {
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kEach = 20000;
  e2::EventRing ring;
  std::atomic<uint64_t> finished{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&ring, &finished, t] {
      for (uint64_t i = 0; i < kEach; ++i) ring.post(i, static_cast<uint32_t>(t), {i, i * 3 + t});
      ++finished;
    });
  }
  uint64_t taken = 0;
  uint64_t wrong = 0;
  std::vector<uint64_t> next(kThreads, 0);
  e2::Event event;
  bool last_round = false;
  do {
    last_round = finished == kThreads;
    while (ring.take(event)) {
      ++taken;
      const uint64_t i = event.values[0];
      wrong += event.type >= kThreads || event.time_ns != i || i < next[event.type] ||
               event.values[1] != i * 3 + event.type || event.values[2] != 0;
      next[event.type % kThreads] = i + 1;
    }
  } while (!last_round);
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(taken > 0);
  CHECK(taken + ring.take_lost() == kThreads * kEach);
  CHECK(ring.take_lost() == 0);
}

TEST_CASE("the engine numbers events; a gap is what was lost; those of a module outlive it") {
  const e2::ModuleRegistration registered{kTeller};
  e2::Engine engine(1024, 2048);
  REQUIRE(engine.create_module("b", "Teller", {}).ok());
  REQUIRE(engine.create_module("a", "Teller", {}).ok());
  std::map<int, std::vector<std::string>> out;
  REQUIRE(engine.run_packets("b", 0, {std::string(60, 'x')}, out).ok());
  REQUIRE(engine.run_packets("a", 0, {std::string(61, 'x')}, out).ok());

  const Args all = engine.events(0);
  CHECK(all["last"].as_uint() == 4);
  const Args::List& events = all["events"].as_list();
  REQUIRE(events.size() == 4);
  CHECK(events[0]["module"].as_string() == "b");  // it told first, though 'a' was asked first
  CHECK(events[0]["kind"].as_string() == "packet");
  CHECK(events[0]["values"]["bytes"].as_uint() == 60);
  CHECK(events[0]["values"]["number"].as_uint() == 1);
  CHECK(events[1]["kind"].as_string() == "silence");
  CHECK(events[1]["values"].as_map().empty());
  CHECK(events[2]["module"].as_string() == "a");
  CHECK(engine.events(3)["events"].as_list().size() == 1);
  CHECK(engine.events(4)["events"].as_list().empty());
  CHECK(engine.events(~0ULL)["events"].as_list().empty());

  const std::vector<std::string> many(200, std::string(60, 'x'));
  REQUIRE(engine.run_packets("a", 0, many, out).ok());
  REQUIRE(engine.destroy_module("a").ok());
  const Args more = engine.events(4);
  const size_t kept = more["events"].as_list().size();
  CHECK(kept == e2::EventRing::kSlots);
  CHECK(more["last"].as_uint() == 4 + 2 * many.size());
  CHECK(more["events"].as_list()[0]["number"].as_uint() == 5 + 2 * many.size() - kept);
  CHECK(more["events"].as_list()[0]["module"].as_string() == "a");
  for (int i = 0; i < 20; ++i) {
    REQUIRE(engine.run_packets("b", 0, many, out).ok());
    (void)engine.events(0);
  }
  CHECK(engine.events(0)["events"].as_list().size() == e2::EventLog::kMostEvents);
}
