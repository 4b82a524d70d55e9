// SPDX-License-Identifier: BSD-3-Clause
// Tests of crypto/: buffers of the exact size, of every length, so that sanitizers see each byte
// that is read or written outside; each implementation against the portable one.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "crypto/aes.h"
#include "crypto/aes_kernels.h"
#include "crypto/huge_array.h"
#include "crypto/prefix_match.h"
#include "host/headers.h"
#include "host/isa.h"

namespace {

using namespace e2;
using Bytes = std::vector<uint8_t>;

constexpr uint8_t kKey[kAesKeyBytes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr uint8_t kNonce[kGcmNonceBytes] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2};

Bytes pattern(size_t len, uint32_t salt) {
  Bytes bytes(len);
  for (size_t i = 0; i < len; ++i) bytes[i] = static_cast<uint8_t>((i + salt) * 2654435761U >> 13);
  return bytes;
}

std::vector<const AesKernels*> all_kernels() {
  std::vector<const AesKernels*> found = {&kAesPortable};
#if defined(__x86_64__)
  if (isa_extras().aes) found.push_back(&kAesNi);
  if (isa_extras().vaes) found.push_back(&kAesVaes);
#endif
  return found;
}

}  // namespace

TEST_CASE("AES: the vector of FIPS 197, by every implementation, at every place of a batch") {
  const Bytes plain = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                       0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
  const Bytes wanted = {0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30,
                        0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a};
  const AesKey key(kKey);
  for (const AesKernels* kernels : all_kernels()) {
    for (size_t count = 0; count <= 40; ++count) {
      Bytes in;
      for (size_t i = 0; i < count; ++i) in.insert(in.end(), plain.begin(), plain.end());
      Bytes out(in.size());
      kernels->blocks(key, in.data(), out.data(), count);
      bool right = true;
      for (size_t i = 0; i < count; ++i) {
        right &= std::equal(wanted.begin(), wanted.end(), out.begin() + static_cast<long>(16 * i));
      }
      CHECK(right);
    }
  }
}

TEST_CASE("counter mode and GCM: every implementation agrees at every length, in exact buffers") {
  const Bytes secret = pattern(kAes256KeyBytes, 4);
  const GcmKey keys[] = {GcmKey(secret.data()), GcmKey(secret.data(), secret.size())};
  for (size_t len = 0; len <= 620; ++len) {
    const GcmKey& key = keys[len / 2 % 2];
    const Bytes text = pattern(len, 1);
    const Bytes aad = pattern(len * 7 % 90, 2);
    Bytes wanted(len);
    kAesPortable.ctr(key.aes(), kNonce, 2, text.data(), wanted.data(), len);
    for (const AesKernels* kernels : all_kernels()) {
      Bytes out(len);
      kernels->ctr(key.aes(), kNonce, 2, text.data(), out.data(), len);
      CHECK(out == wanted);
      uint8_t state[2][kAesBlock] = {};
      kAesPortable.ghash(key, state[0], text.data(), len / kAesBlock);
      kernels->ghash(key, state[1], text.data(), len / kAesBlock);
      CHECK(std::equal(state[0], state[0] + kAesBlock, state[1]));
    }
    Bytes sealed(len);
    Bytes tag(kGcmTagBytes);
    gcm_seal(key, kNonce, aad.data(), aad.size(), text.data(), sealed.data(), len, tag.data());
    CHECK(sealed == wanted);
    Bytes opened(len);
    CHECK(gcm_open(key, kNonce, aad.data(), aad.size(), sealed.data(), opened.data(), len,
                   tag.data()));
    CHECK(opened == text);
    tag[len % kGcmTagBytes] ^= 1;
    CHECK_FALSE(gcm_open(key, kNonce, aad.data(), aad.size(), sealed.data(), opened.data(), len,
                         tag.data()));
  }
}

TEST_CASE("HugeArray: what was put in, with and without whole huge pages, also after a move") {
  for (size_t count : {size_t{0}, size_t{1}, size_t{5000}, size_t{1} << 18, size_t{700001}}) {
    std::vector<uint64_t> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = i * i;
    HugeArray<uint64_t> made(values);
    HugeArray<uint64_t> array;
    array = std::move(made);
    CHECK(array.size() == count);
    CHECK(array.bytes() == 8 * count);
    CHECK(std::equal(values.begin(), values.end(), array.data()));
  }
}

TEST_CASE("keys wipe themselves") {
  alignas(GcmKey) unsigned char place[sizeof(GcmKey)] = {};
  const Bytes secret = pattern(kAes256KeyBytes, 4);
  auto* key = new (place) GcmKey(secret.data(), secret.size());
  const unsigned char* bytes = place;
  CHECK(std::count(bytes, bytes + sizeof place, 0) < static_cast<long>(sizeof place / 2));
  key->~GcmKey();
  CHECK(std::count(bytes, bytes + sizeof place, 0) == sizeof place);
}

TEST_CASE("SecretRandom: seeded it repeats, unseeded it doesn't, and no bound is passed") {
  SecretRandom a(kKey);
  SecretRandom b(kKey);
  SecretRandom c(nullptr);
  SecretRandom d(nullptr);
  bool same = true;
  bool other_same = true;
  for (int i = 0; i < 200; ++i) {
    same &= a.next() == b.next();
    other_same &= c.next() == d.next();
  }
  CHECK(same);
  CHECK_FALSE(other_same);
  for (uint64_t bound : {uint64_t{1}, uint64_t{2}, uint64_t{3}, uint64_t{1} << 63, ~uint64_t{0}}) {
    for (int i = 0; i < 100; ++i) CHECK(a.below(bound) < bound);
  }
}

namespace {

// Ranges with ends close together, at the edges, among mapped addresses and anywhere.
std::vector<ValueRange> some_ranges(SecretRandom& random, uint32_t domain_bits, size_t count) {
  const Wide last = domain_bits == 128 ? ~Wide{0} : (Wide{1} << domain_bits) - 1;
  const Wide bases[] = {0, Wide{0xffff} << 32, Wide{0x20010db8} << 96, last - 500};
  const auto value = [&]() -> Wide {
    if (random.below(2) == 0) return (Wide{random.next()} << 64 | random.next()) & last;
    return (bases[random.below(4)] + random.below(500)) & last;
  };
  std::vector<ValueRange> ranges;
  while (ranges.size() < count) {
    const Wide a = value();
    const Wide b = value();
    const ValueRange range = {std::min(a, b), std::max(a, b)};
    if (std::none_of(ranges.begin(), ranges.end(), [&range](const ValueRange& other) {
          return other.first == range.first && other.last == range.last;
        })) {
      ranges.push_back(range);
    }
  }
  return ranges;
}

uint32_t prefix_in(const EncryptedPrefixes& map, Wide value) {
  return std::find_if(map.intervals.begin(), map.intervals.end(),
                      [value](const auto& interval) { return value <= interval.last; })
      ->prefix;
}

void check_map(const EncryptedPrefixes& map, SecretRandom& random) {
  const PrefixMap made(map, kKey);
  const uint32_t suffix_bits = map.domain_bits - map.prefix_bits;
  const Wide end = map.intervals.back().last;
  std::vector<Wide> values = {0, end};
  for (const auto& interval : map.intervals) {
    values.insert(values.end(),
                  {interval.last, std::min(end, interval.last + 1), interval.last / 2});
  }
  values.resize(values.size() - random.below(std::min<size_t>(values.size(), 32)));
  const Bytes seeds = pattern(values.size() * kAesBlock, 3);
  bool right = true;
  if (map.domain_bits <= 64) {
    std::vector<uint64_t> in(values.begin(), values.end());
    std::vector<uint64_t> out(in.size());
    CHECK(made.first_outside(in.data(), in.size()) == in.size());
    made.encrypt(in.data(), seeds.data(), out.data(), in.size());
    for (size_t i = 0; i < in.size(); ++i) {
      right &= out[i] >> suffix_bits == prefix_in(map, values[i]);
    }
  } else {
    Bytes in(values.size() * kAesBlock);
    Bytes out(in.size());
    for (size_t i = 0; i < values.size(); ++i) {
      store_be64(&in[i * kAesBlock], static_cast<uint64_t>(values[i] >> 64));
      store_be64(&in[i * kAesBlock + 8], static_cast<uint64_t>(values[i]));
    }
    CHECK(made.first_outside_wide(in.data(), values.size()) == values.size());
    made.encrypt_wide(in.data(), seeds.data(), out.data(), values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      const Wide encrypted =
          Wide{load_be64(&out[i * kAesBlock])} << 64 | load_be64(&out[i * kAesBlock + 8]);
      right &= encrypted >> suffix_bits == prefix_in(map, values[i]);
    }
  }
  CHECK(right);
}

}  // namespace

TEST_CASE("PrefixMap: each value gets the prefix of its interval, in every layout") {
  SecretRandom random(kKey);
  for (uint32_t domain_bits : {1U, 4U, 6U, 16U, 20U, 32U, 40U, 64U, 65U, 100U, 128U}) {
    for (size_t count : {0U, 1U, 2U, 9U, 70U, 300U}) {
      if (domain_bits < 16 && count > 2) continue;
      const std::vector<ValueRange> ranges = some_ranges(random, domain_bits, count);
      const EncryptedPrefixes map = encrypt_prefixes(ranges, domain_bits, 0, random);
      REQUIRE(map.status.ok());
      check_map(map, random);
      bool right = true;
      for (size_t i = 0; i < ranges.size(); ++i) {
        const std::vector<uint32_t> rule = map.rule(i);
        for (const auto& interval : map.intervals) {
          const bool inside = ranges[i].first <= interval.last && interval.last <= ranges[i].last;
          right &= inside == std::binary_search(rule.begin(), rule.end(), interval.prefix);
        }
      }
      CHECK(right);
    }
  }
}

TEST_CASE("encrypt_prefixes: errors name what is wrong") {
  SecretRandom random(nullptr);
  CHECK(encrypt_prefixes({{1, 2}, {1, 2}}, 16, 0, random).status.code == EEXIST);
  CHECK(encrypt_prefixes({{0, 16}}, 4, 0, random).status.code == ERANGE);
  CHECK(encrypt_prefixes({{2, 1}}, 4, 0, random).status.code == EINVAL);
  CHECK(encrypt_prefixes({{0, 0}, {1, 1}}, 4, 1, random).status.code == ENOSPC);
  CHECK(encrypt_prefixes({}, 129, 0, random).status.code == EINVAL);
}
