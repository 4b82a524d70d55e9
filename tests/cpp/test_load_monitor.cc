// SPDX-License-Identifier: BSD-3-Clause
// LoadMonitor on a clock that the test moves: its average against a twin, its events against the
// hold time and the thresholds.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "host/occupancy.h"
#include "modules/load_filter.h"

namespace {

using e2::Args;

constexpr uint64_t kMs = 1'000'000;

Args map(std::initializer_list<std::pair<const char*, Args>> entries) {
  Args args{Args::Map{}};
  for (const auto& entry : entries) args.set(entry.first, entry.second);
  return args;
}

// A queue that is as full as the test says.
class Tank final : public e2::Module, public e2::Occupancy {
 public:
  uint64_t waiting() const override { return level; }
  uint64_t most_waiting() const override { return 100; }
  uint64_t level = 0;
};
const e2::ModuleClass kTank = {"Tank", "tank", "a tank", "", 1, 1, {}, e2::make_module<Tank>};

// An engine's names, and a monitor that is run by hand.
struct Bench final : e2::Host {
  e2::Port* find_port(const std::string&) override { return nullptr; }
  e2::Module* find_module(const std::string& name) override {
    return name == "tank" ? tank.get() : nullptr;
  }

  void start(const Args& args) {
    const e2::Status status = monitor->init(*this, args);
    REQUIRE_MESSAGE(status.ok(), status.message);
    (void)monitor->run_task(ctx, 0);
  }
  void advance(uint64_t ns) {
    ctx.now_ns += ns;
    (void)monitor->run_task(ctx, 0);
  }
  Args status() {
    Args response;
    for (const e2::Command& command : e2::find_module_class("LoadMonitor")->commands) {
      REQUIRE(command.run(*monitor, {}, response).ok());
    }
    return response;
  }
  // The kinds of events since the last call; true is overload.
  std::vector<bool> events() {
    std::vector<bool> kinds;
    e2::Event event;
    while (monitor->event_ring()->take(event)) {
      kinds.push_back(monitor->event_types()[event.type].kind == "overload");
    }
    return kinds;
  }

  std::unique_ptr<Tank> tank = std::make_unique<Tank>();
  std::unique_ptr<e2::Module> monitor = e2::find_module_class("LoadMonitor")->make();
  e2::Context ctx;
};

}  // namespace

TEST_CASE("the average is the integral that defines it") {
  e2::Random random;
  for (int round = 0; round < 50; ++round) {
    const uint64_t tau = 1 + random.below(1'000'000'000);
    e2::Ewma ewma;
    ewma.set_time_constant(tau);
    // Each span's value counts by how long ago it was.
    std::vector<std::pair<double, uint64_t>> spans;
    for (int i = 0; i < 40; ++i) {
      spans.emplace_back(random.real() * 1e6, random.below(2 * tau));
      ewma.add(spans.back().first, spans.back().second);
    }
    double expected = 0;
    double age = 0;  // of the span's end, in time constants
    for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
      const double length = static_cast<double>(span->second) / static_cast<double>(tau);
      expected += span->first * (std::exp(-age) - std::exp(-age - length));
      age += length;
    }
    CHECK(ewma.value() == doctest::Approx(expected).epsilon(1e-9));
  }
}

TEST_CASE("no two changes within the hold time, and none without its threshold") {
  e2::Random random;
  for (int round = 0; round < 200; ++round) {
    const uint64_t hold = random.below(1000);
    e2::Hysteresis state;
    state.set_hold(hold);
    uint64_t now = 0;
    uint64_t last = 0;
    bool overloaded = false;
    int changes = 0;
    for (int i = 0; i < 2000; ++i) {
      now += 1 + random.below(100);
      const double level = random.real();
      const bool changed = state.update(now, level > 0.8, level < 0.3);
      CHECK(changed == (state.overloaded() != overloaded));
      const bool due = overloaded ? level < 0.3 : level > 0.8;
      const bool may = changes == 0 || now - last >= hold;
      CHECK(changed == (due && may));
      if (!changed) continue;
      overloaded = !overloaded;
      last = now;
      ++changes;
    }
    CHECK(changes > 10);
  }
}

TEST_CASE("a queue that fills up and empties: overload, then relief") {
  Bench bench;
  bench.start(map({{"queue", "tank"},
                   {"time_constant_ns", 10 * kMs},
                   {"hold_ns", 50 * kMs},
                   {"interval_ns", kMs},
                   {"high_occupancy", 0.8},
                   {"low_occupancy", 0.3}}));
  bench.tank->level = 100;
  e2::Ewma twin;
  twin.set_time_constant(10 * kMs);
  for (int i = 0; i < 16; ++i) {
    bench.advance(kMs);
    twin.add(1.0, kMs);
    CHECK(bench.status()["occupancy"].as_double() == doctest::Approx(twin.value()));
    CHECK_FALSE(bench.status()["overloaded"].as_bool());
  }
  bench.advance(kMs);  // 1 - exp(-1.7) is the first above 0.8
  CHECK(bench.status()["overloaded"].as_bool());
  CHECK(bench.status()["overloads"].as_uint() == 1);
  CHECK(bench.events() == std::vector<bool>{true});

  bench.tank->level = 0;
  for (int i = 0; i < 49; ++i) bench.advance(kMs);
  CHECK(bench.status()["occupancy"].as_double() < 0.3);
  CHECK(bench.events().empty());  // held
  bench.advance(kMs);
  CHECK(bench.events() == std::vector<bool>{false});
  CHECK(bench.status()["reliefs"].as_uint() == 1);

  bench.tank->level = 60;  // between the thresholds nothing happens
  for (int i = 0; i < 500; ++i) bench.advance(kMs);
  CHECK(bench.events().empty());
}

TEST_CASE("a task that runs late takes one long sample; one that runs early takes none") {
  Bench bench;
  bench.start(map({{"queue", "tank"}, {"time_constant_ns", 10 * kMs}, {"interval_ns", kMs}}));
  bench.tank->level = 50;
  bench.advance(kMs / 2);
  CHECK(bench.status()["occupancy"].as_double() == 0);
  bench.advance(100 * kMs);
  CHECK(bench.status()["occupancy"].as_double() == doctest::Approx(0.5 * (1 - std::exp(-10.05))));
}

TEST_CASE("a monitor outlives what it watches") {
  Bench bench;
  bench.start(map({{"queue", "tank"}, {"time_constant_ns", kMs}, {"interval_ns", kMs}}));
  bench.tank->level = 100;
  bench.advance(100 * kMs);
  CHECK(bench.status()["queue"].as_string() == "tank");
  CHECK(bench.status()["occupancy"].as_double() == doctest::Approx(1.0));
  bench.tank.reset();
  bench.advance(100 * kMs);
  CHECK(bench.status()["queue"].as_string().empty());
  CHECK(bench.status()["occupancy"].as_double() == doctest::Approx(0.0));
}

TEST_CASE("old packets are overload; young ones, or none, relief") {
  const e2::ModuleRegistration registered{kTank};
  constexpr uint64_t kHour = 3'600'000 * kMs;  // no test takes that long
  e2::Engine engine(64, 2048);
  const std::string stamp(8, '\0');
  REQUIRE(engine
              .create_module(
                  "set", "SetMetadata",
                  map({{"attrs",
                        Args::List{map({{"name", "timestamp"}, {"size", 8}, {"offset", 0}})}}}))
              .ok());
  REQUIRE(engine
              .create_module("m", "LoadMonitor",
                             map({{"high_delay_ns", kHour},
                                  {"low_delay_ns", kHour / 2},
                                  {"time_constant_ns", kMs},
                                  {"interval_ns", kMs},
                                  {"hold_ns", kMs}}))
              .ok());
  REQUIRE(engine.create_module("sink", "Sink", {}).ok());
  REQUIRE(engine.connect("set", 0, "m", 0, true).ok());
  REQUIRE(engine.connect("m", 0, "sink", 0, true).ok());
  e2::Module& monitor = *engine.find_module("m");
  e2::Context ctx;
  const auto send = [&](uint64_t age_ns) {
    const uint64_t stamp_ns = e2::clock_ns() - age_ns;
    std::string packet(60, '\0');
    std::memcpy(packet.data(), &stamp_ns, sizeof stamp_ns);
    std::map<int, std::vector<std::string>> out;
    REQUIRE(engine.run_packets("set", 0, {packet, std::string(60, '\0')}, out).ok());
    ctx.now_ns += 50 * kMs;
    (void)monitor.run_task(ctx, 0);
  };
  const auto status = [&] {
    Args response;
    REQUIRE(engine.module_command("m", "get_status", {}, response).ok());
    return response;
  };
  ctx.now_ns = kMs;
  (void)monitor.run_task(ctx, 0);
  send(2 * kHour);
  CHECK(status()["overloaded"].as_bool());
  CHECK(status()["delay_ns"].as_double() >= 2.0 * kHour * (1 - 1e-6));
  send(0);
  CHECK_FALSE(status()["overloaded"].as_bool());
  send(2 * kHour);
  CHECK(status()["overloaded"].as_bool());
  ctx.now_ns += 50 * kMs;
  (void)monitor.run_task(ctx, 0);  // without a packet
  CHECK_FALSE(status()["overloaded"].as_bool());
  CHECK(engine.events(0)["events"].as_list().size() == 4);
}
