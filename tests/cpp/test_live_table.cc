// SPDX-License-Identifier: BSD-3-Clause
// Live<> under threads that read while one changes it, with barriers on either side. `make
// sanitize` runs this file under ThreadSanitizer, too: what readers see is plain memory.
#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "host/live_table.h"
#include "modules/key_table.h"
#include "modules/rule_index.h"

namespace {

using e2::Context;
using e2::Live;
using e2::Status;

constexpr uint32_t kReaders = 3;
constexpr uint64_t kChanges = 5000;

Context worker(uint32_t wid) {
  Context ctx;
  ctx.wid = wid;
  return ctx;
}

// Runs `read(ctx)` over and over in some threads while `write()` runs in this one.
template <typename Read, typename Write>
void beside(Read read, Write write) {
  std::atomic<bool> stop{false};
  std::atomic<uint32_t> started{0};
  std::vector<std::thread> threads;
  for (uint32_t wid = 0; wid < kReaders; ++wid) {
    threads.emplace_back([&, wid] {
      const Context ctx = worker(wid * 21);
      read(ctx);
      ++started;
      while (!stop.load(std::memory_order_relaxed)) read(ctx);
    });
  }
  while (started != kReaders) std::this_thread::yield();
  write();
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

// Everywhere the number of the last change.
struct Numbers {
  uint64_t all[200] = {};
};

void check_whole(bool readers_fence) {
  Live<Numbers> live(readers_fence);
  std::atomic<uint64_t> torn{0};
  std::atomic<uint64_t> backwards{0};
  uint64_t last[e2::kMaxWorkers] = {};
  const auto read = [&](const Context& ctx) {
    const auto numbers = live.read(ctx);
    const uint64_t first = numbers->all[0];
    std::this_thread::yield();  // where threads share a core, the change comes now
    for (const uint64_t number : numbers->all) torn += number != first;
    backwards += first < last[ctx.wid];
    last[ctx.wid] = first;
  };
  beside(read, [&live] {
    for (uint64_t change = 1; change <= kChanges; ++change) {
      live.change([change](Numbers& numbers) {
        for (uint64_t& number : numbers.all) number = change;
      });
    }
  });
  CHECK(torn == 0);
  CHECK(backwards == 0);
  CHECK(live.look()->all[0] == kChanges);
}

// Keys 0..49 are always there; others come and go, so that rows and slots move.
void check_keys(bool readers_fence) {
  constexpr uint64_t kStay = 50;
  Live<e2::KeyTable> live(readers_fence);
  live.change([](e2::KeyTable& table) {
    table = e2::KeyTable(1, 1);
    for (uint64_t key = 0; key < kStay; ++key) {
      bool created = false;
      *table.insert(&key, created) = key;
    }
  });
  std::atomic<uint64_t> wrong{0};
  const auto read = [&](const Context& ctx) {
    e2::KeyBatch keys;
    const uint64_t* hits[e2::kMaxBatch];
    for (uint64_t i = 0; i < e2::kMaxBatch; ++i) keys.words[0][i] = (i * 7 + ctx.wid) % kStay;
    auto table = live.read(ctx);
    table->find_batch(keys, e2::kMaxBatch, hits);
    std::this_thread::yield();
    for (uint64_t i = 0; i < e2::kMaxBatch; ++i) {
      wrong += hits[i] == nullptr || *hits[i] != keys.words[0][i];
    }
    table.release();
  };
  beside(read, [&live] {
    for (uint64_t change = 0; change < kChanges; ++change) {
      const uint64_t key = kStay + change * 31 % 400;
      live.change([key](e2::KeyTable& table) {
        bool created = false;
        if (!table.erase(&key)) *table.insert(&key, created) = key;
      });
    }
  });
  CHECK(wrong == 0);
}

// Rules i < kRules send key i to gate i. Every change puts a whole new index in the old one's
// place, with other masks, and gates from another thousand.
void check_rules(bool readers_fence) {
  constexpr uint32_t kRules = 100;
  Live<e2::RuleIndex> live(readers_fence);
  const auto make = [](uint64_t change) {
    std::vector<e2::IndexRule> rules(kRules);
    std::vector<const e2::IndexRule*> all;
    for (uint32_t r = 0; r < kRules; ++r) {
      rules[r].mask.words[change % 2] = (change + r) % 3 == 0 ? ~0ULL : 0xffff;
      rules[r].value.words[change % 2] = r;
      rules[r].age = r;
      rules[r].gate = static_cast<e2::Gate>(change % 8 * 1000 + r);
      all.push_back(&rules[r]);
    }
    e2::RuleIndex index(2, 0, {{0, ~0ULL}, {1, ~0ULL}});
    index.build(all);
    return index;
  };
  live.change([&](e2::RuleIndex& index) { index = make(0); });
  std::atomic<uint64_t> wrong{0};
  const auto read = [&](const Context& ctx) {
    e2::KeyBatch keys;
    e2::Gate gates[e2::kMaxBatch];
    for (uint64_t i = 0; i < e2::kMaxBatch; ++i) {
      keys.words[0][i] = keys.words[1][i] = (i * 3 + ctx.wid) % kRules;
    }
    auto index = live.read(ctx);
    index->find_batch(keys, e2::kMaxBatch, e2::kDropBase, gates);
    index.release();
    for (uint64_t i = 0; i < e2::kMaxBatch; ++i) {
      wrong += gates[i] % 1000 != keys.words[0][i] || gates[i] / 1000 != gates[0] / 1000;
    }
  };
  beside(read, [&] {
    for (uint64_t change = 1; change <= kChanges / 10; ++change) {
      const e2::RuleIndex made = make(change);
      live.change([&made](e2::RuleIndex& index) { index = made; });
    }
  });
  CHECK(wrong == 0);
}

void check_nested(bool readers_fence) {
  Live<Numbers> live(readers_fence);
  const Context ctx = worker(5);
  auto outer = live.read(ctx);
  std::atomic<int> calls{0};
  std::thread writer([&] {
    live.change([&calls](Numbers& numbers) {
      numbers.all[0] = 1;
      ++calls;
    });
  });
  while (calls == 0) std::this_thread::yield();
  uint32_t wrong = 0;
  for (int round = 0; round < 1000; ++round) {
    auto inner = live.read(ctx);
    wrong += &*inner != &*outer;
    inner.release();
    std::this_thread::yield();
    wrong += calls != 1 || outer->all[0] != 0;
  }
  CHECK(wrong == 0);  // the copy that this worker reads has to wait
  outer.release();
  outer.release();  // says nothing new
  writer.join();
  CHECK(calls == 2);
  CHECK(live.read(ctx)->all[0] == 1);
}

}  // namespace

TEST_CASE("a reader of a live table sees it from before or after each change") {
  check_whole(true);
  check_whole(!e2::can_fence_threads());
}

TEST_CASE("a reader of a live hash table always finds what is always there") {
  check_keys(true);
  check_keys(!e2::can_fence_threads());
}

TEST_CASE("a reader of a live index of rules meets one whole set of them") {
  check_rules(true);
  check_rules(!e2::can_fence_threads());
}

TEST_CASE("a worker that reads a live table twice keeps one copy until the first release") {
  check_nested(true);
  check_nested(!e2::can_fence_threads());
}

TEST_CASE("a change to a live table that fails changes nothing") {
  Live<Numbers> live;
  const Context ctx = worker(0);
  int calls = 0;
  const auto set = [&](uint64_t number) {
    return live.try_change([&](Numbers& numbers) {
      ++calls;
      if (number == 0) return Status::invalid("must be above 0");
      numbers.all[0] = number;
      return Status{};
    });
  };
  CHECK(set(3).ok());
  CHECK(calls == 2);
  CHECK(set(0).message == "must be above 0");
  CHECK(calls == 3);
  CHECK(live.read(ctx)->all[0] == 3);
  CHECK(set(4).ok());
  CHECK(live.read(ctx)->all[0] == 4);
  CHECK(set(5).ok());  // the other copy
  CHECK(live.read(ctx)->all[0] == 5);
}
