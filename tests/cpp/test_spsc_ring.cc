// SPDX-License-Identifier: BSD-3-Clause
// SpscRing between two threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <thread>

#include "ports/spsc_ring.h"

TEST_CASE("the ring keeps order and bound between two threads") {
  constexpr uint32_t kItems = 200000;
  e2::SpscRing<uint32_t> ring(100);
  std::thread producer([&ring] {
    uint32_t next = 0;
    while (next < kItems) {
      uint32_t items[7];
      const uint32_t count = std::min<uint32_t>(7, kItems - next);
      for (uint32_t i = 0; i < count; ++i) items[i] = next + i;
      const uint32_t pushed = ring.push(items, count);
      next += pushed;
      if (pushed == 0) std::this_thread::yield();
    }
  });
  uint32_t expected = 0;
  bool ordered = true, bounded = true;
  while (expected < kItems) {
    uint32_t items[5];
    bounded = bounded && ring.size() <= ring.capacity();
    const uint32_t count = ring.pop(items, 5);
    for (uint32_t i = 0; i < count; ++i) ordered = ordered && items[i] == expected++;
    if (count == 0) std::this_thread::yield();
  }
  producer.join();
  CHECK(ordered);
  CHECK(bounded);
  const uint32_t items[200] = {};
  CHECK(ring.push(items, 200) == 100);
}
