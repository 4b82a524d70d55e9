// SPDX-License-Identifier: BSD-3-Clause
// KeyTable against std::map: random insertions, removals and lookups, one by one and in batches.
#include <doctest/doctest.h>

#include <map>
#include <random>
#include <vector>

#include "modules/key_table.h"

namespace {

using Key = std::vector<uint64_t>;

// Few different words, so that keys come again; the varied byte may be any of a word's.
Key random_key(std::mt19937_64& random, uint32_t words) {
  Key key(words);
  for (uint64_t& word : key) word = (random() % 40) << (random() % 8 * 8);
  return key;
}

}  // namespace

TEST_CASE("KeyTable does what a map does") {
  for (const uint32_t words : {1u, 2u, 3u, 8u}) {
    CAPTURE(words);
    std::mt19937_64 random(words);
    e2::KeyTable table(words, 1);
    std::map<Key, uint64_t> twin;
    for (int step = 0; step < 30000; ++step) {
      const Key key = random_key(random, words);
      const bool shrinking = step % 10000 > 6000;
      if (random() % 3 == (shrinking ? 1u : 0u) || (shrinking && random() % 2 == 0)) {
        // Mostly a key that is there.
        const auto at = twin.lower_bound(key);
        const Key gone = at == twin.end() ? key : at->first;
        REQUIRE(table.erase(gone.data()) == (twin.erase(gone) == 1));
      } else {
        bool created = false;
        *table.insert(key.data(), created) = static_cast<uint64_t>(step);
        REQUIRE(created == (twin.count(key) == 0));
        twin[key] = static_cast<uint64_t>(step);
      }
      REQUIRE(table.size() == twin.size());
      if (step % 50 != 0) continue;
      e2::KeyBatch keys;
      Key asked[e2::kMaxBatch];
      const uint64_t* found[e2::kMaxBatch];
      for (uint32_t i = 0; i < e2::kMaxBatch; ++i) {
        asked[i] = random_key(random, words);
        const auto at = twin.lower_bound(asked[i]);
        if (i % 2 == 0 && at != twin.end()) asked[i] = at->first;
        for (uint32_t w = 0; w < words; ++w) keys.words[w][i] = asked[i][w];
      }
      table.find_batch(keys, e2::kMaxBatch, found);
      for (uint32_t i = 0; i < e2::kMaxBatch; ++i) {
        const auto at = twin.find(asked[i]);
        REQUIRE((found[i] == nullptr) == (at == twin.end()));
        REQUIRE(table.find(asked[i].data()) == found[i]);
        if (found[i] != nullptr) REQUIRE(*found[i] == at->second);
      }
    }
    table.clear();
    CHECK(table.find(random_key(random, words).data()) == nullptr);
  }
}
