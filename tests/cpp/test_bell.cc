// SPDX-License-Identifier: BSD-3-Clause
// Bell: what ends a sleep, and that no ring is lost between two threads.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "host/bell.h"

namespace {

using e2::Bell;
using Woken = e2::Bell::Woken;

constexpr uint64_t kLongNs = 20'000'000'000;
constexpr uint64_t kShortNs = 1000;

}  // namespace

TEST_CASE("sleep ends by its time, or by a ring since the bell was hung") {
  Bell bell(7);
  CHECK(bell.wid() == 7);
  bell.ring();  // nobody has hung it: whoever will sleep looks first
  CHECK(bell.wait(kShortNs, true) == Woken::kByTime);
  bell.hang();
  CHECK(bell.wait(kShortNs, true) == Woken::kByTime);
  bell.ring();
  bell.ring();
  CHECK(bell.wait(kLongNs, true) == Woken::kByRing);
  CHECK(bell.wait(kShortNs, true) == Woken::kByTime);
}

TEST_CASE("sleep ends when something watched is readable, unless it is to be deaf") {
  Bell bell(0);
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
  bell.watch({ends[0]});
  CHECK(bell.wait(kShortNs, true) == Woken::kByTime);
  REQUIRE(send(ends[1], "x", 1, 0) == 1);
  CHECK(bell.wait(kLongNs, true) == Woken::kByWatched);
  CHECK(bell.wait(kLongNs, true) == Woken::kByWatched);  // it still is
  CHECK(bell.wait(kShortNs, false) == Woken::kByTime);
  bell.hang();
  bell.ring();
  CHECK(bell.wait(kLongNs, true) == Woken::kByRing);  // which goes first
  bell.watch({});
  CHECK(bell.wait(kShortNs, true) == Woken::kByTime);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("an error of a socket wakes once") {
  Bell bell(0);
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  REQUIRE(send(ends[0], "x", 1, 0) == 1);
  close(ends[1]);  // with something unread: a reset
  bell.watch({ends[0]});
  CHECK(bell.wait(kLongNs, true) == Woken::kByWatched);
  int error = -1;
  socklen_t length = sizeof(error);
  REQUIRE(getsockopt(ends[0], SOL_SOCKET, SO_ERROR, &error, &length) == 0);
  CHECK(error == 0);  // it was asked for
  close(ends[0]);
}

TEST_CASE("whatever is left before a ring is found before or after the sleep") {
  constexpr uint64_t kItems = 20'000;
  Bell bell(0);
  std::atomic<uint64_t> left{0}, found{0};
  std::thread leaves([&] {
    for (uint64_t item = 1; item <= kItems; ++item) {
      left.store(item, std::memory_order_release);
      bell.ring();
      while (found.load(std::memory_order_acquire) < item) std::this_thread::yield();
    }
  });
  uint64_t lost = 0;
  while (found.load(std::memory_order_relaxed) < kItems) {
    bell.hang();
    const uint64_t seen = left.load(std::memory_order_acquire);
    if (seen != found.load(std::memory_order_relaxed)) {
      found.store(seen, std::memory_order_release);
      continue;
    }
    lost += bell.wait(kLongNs, true) == Woken::kByTime;
  }
  leaves.join();
  CHECK(lost == 0);
}
