// SPDX-License-Identifier: BSD-3-Clause
// Embark's pipeline under fire: packets are sealed and encrypted, changed, cut, lengthened, and
// decrypted and opened; files with maps are changed and cut, also under a right checksum. What is
// checked is that no packet is lost or made up, that nothing unauthentic comes out as authentic,
// and, under sanitizers, that nothing is read or written out of bounds.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "cpp/embark_files.h"
#include "crypto/prefix_match.h"
#include "crypto/sha256.h"
#include "engine/engine.h"
#include "host/headers.h"

namespace {

using e2::Args;
using Packets = std::vector<std::string>;

struct Dice {
  e2::Random random;
  uint32_t below(size_t range) { return random.below(range); }
  char byte() { return static_cast<char>(random.next() >> 56); }
};

// IP packets of many protocols and lengths, some fragments, tagged and padded.
std::string packet(Dice& dice) {
  constexpr uint8_t kProtocols[] = {6, 17, 1, 58, 47, 132, 59, 60, 44};
  std::string frame(12, '\x02');
  if (dice.below(4) == 0) frame += std::string("\x81\x00\x00\x07", 4);
  const uint8_t protocol = kProtocols[dice.below(sizeof kProtocols)];
  std::string body(dice.below(dice.below(8) == 0 ? 1400 : 80), '\0');
  for (char& byte : body) byte = dice.byte();
  auto* const bytes = reinterpret_cast<uint8_t*>(body.data());
  if (protocol == 6 && body.size() >= 20) body[12] = '\x50';
  if (protocol == 17 && body.size() >= 8) {
    e2::store_be16(bytes + 4, static_cast<uint16_t>(body.size()));
  }
  if ((protocol == 1 || protocol == 58) && !body.empty()) {
    constexpr uint8_t kTypes[] = {0, 3, 8, 11, 1, 128, 135, 139};
    bytes[0] = kTypes[dice.below(sizeof kTypes)];
  }
  if (dice.below(2) == 0) {
    frame += std::string("\x86\xdd\x60\x00\x00\x00", 6);
    frame += {static_cast<char>(body.size() >> 8), static_cast<char>(body.size())};
    frame += {static_cast<char>(protocol), '\x09'};
    for (int i = 0; i < 32; ++i) frame += dice.byte();
  } else {
    const size_t options = dice.below(4) == 0 ? 4 * dice.below(11) : 0;
    const size_t total = 20 + options + body.size();
    const char fragment = dice.below(4) == 0 ? '\x20' : '\0';
    frame += std::string("\x08\x00", 2);
    frame += {static_cast<char>(0x45 + options / 4), '\0'};
    frame += {static_cast<char>(total >> 8), static_cast<char>(total), dice.byte(), dice.byte()};
    frame += {fragment, static_cast<char>(dice.below(4) == 0 ? 5 : 0), '\x09'};
    frame += {static_cast<char>(protocol), dice.byte(), dice.byte()};
    frame += std::string("\x0a\x00\x00", 3) + dice.byte() + std::string("\x0a\x00\x00", 3);
    frame += dice.byte() + std::string(options, '\1');
  }
  frame += body;
  if (dice.below(4) == 0) frame.append(dice.below(20), '\x77');
  return frame;
}

std::string mutate(std::string frame, Dice& dice) {
  const uint32_t changes = 1 + dice.below(3);
  for (uint32_t i = 0; i < changes && frame.size() > 14; ++i) {
    // Mostly in the headers, of which lengths and flags do most.
    const size_t reach = dice.below(4) == 0 ? frame.size() : std::min<size_t>(frame.size(), 140);
    const size_t at =
        dice.below(3) == 0 ? std::min<size_t>(54 + dice.below(6), reach - 1) : dice.below(reach);
    switch (dice.below(7)) {
      case 0:
        frame[at] = dice.byte();
        break;
      case 1:
      case 2:
        frame[at] ^= static_cast<char>(1 << dice.below(8));
        break;
      case 3:
        frame.erase(at, 1 + dice.below(16));
        break;
      case 4:
        frame.insert(at, 1 + dice.below(16), dice.byte());
        break;
      case 5:
        frame.resize(at);
        break;
      default:
        frame[at] = dice.below(2) == 0 ? '\0' : '\xff';
    }
  }
  // A payload length that fits, so that what lies behind the IPv6 header is looked at.
  if (frame.size() >= 54 && dice.below(3) != 0) {
    auto* const data = reinterpret_cast<uint8_t*>(frame.data());
    e2::store_be16(data + 18, static_cast<uint16_t>(frame.size() - 54));
  }
  return frame;
}

// Packets through modules in a row; where the last one's gate leads nowhere they come out of it.
struct Pipeline {
  explicit Pipeline(const EmbarkFiles& files, std::vector<const char*> classes, bool sealed)
      : engine(8192, 2048), names(std::move(classes)) {
    for (const char* name : names) {
      const e2::Status made = engine.create_module(name, name, files.args(name, sealed));
      REQUIRE_MESSAGE(made.ok(), made.message);
    }
    for (size_t i = 1; i < names.size(); ++i) {
      REQUIRE(engine.connect(names[i - 1], 0, names[i], 0, false).ok());
    }
  }

  Packets run(const Packets& packets) {
    std::map<int, Packets> out;
    REQUIRE(engine.run_packets(names.front(), 0, packets, out).ok());
    Packets all;
    for (auto& gate : out) all.insert(all.end(), gate.second.begin(), gate.second.end());
    return all;
  }

  uint64_t drops() {
    uint64_t sum = 0;
    for (const char* name : names) {
      Args stats;
      REQUIRE(engine.module_command(name, "e2_stats", {}, stats).ok());
      for (const auto& drop : stats["drops"].as_map()) sum += drop.second.as_uint();
    }
    return sum;
  }

  e2::Engine engine;
  std::vector<const char*> names;
};

}  // namespace

TEST_CASE("encrypted packets, mutated: none lost, none made up, most refused") {
  const EmbarkFiles files;
  Dice dice;
  Packets clear;
  for (int i = 0; i < 600; ++i) clear.push_back(packet(dice));
  Pipeline encrypt(files, {"PrefixMatchEncrypt"}, false);
  const Packets encrypted = encrypt.run(clear);
  CHECK(encrypted.size() + encrypt.drops() == clear.size());
  REQUIRE(encrypted.size() > 300);
  Pipeline there_and_back(files, {"PrefixMatchDecrypt"}, false);
  CHECK(there_and_back.run(encrypted).size() == encrypted.size());
  CHECK(there_and_back.drops() == 0);

  Packets mutants;
  for (int i = 0; i < 20000; ++i) {
    mutants.push_back(mutate(encrypted[dice.below(encrypted.size())], dice));
  }
  Pipeline decrypt(files, {"PrefixMatchDecrypt"}, false);
  uint64_t passed = 0;
  for (size_t at = 0; at < mutants.size(); at += 500) {
    const auto from = mutants.begin() + static_cast<long>(at);
    passed += decrypt.run({from, from + 500}).size();
  }
  CHECK(passed + decrypt.drops() == mutants.size());
  CHECK(passed > 0);
  CHECK(passed <= encrypted.size());  // each nonce once
  CHECK(decrypt.engine.mempool()["in_use"].as_uint() == 0);
}

TEST_CASE("sealed, encrypted, mutated, decrypted and opened in one engine: none lost") {
  const EmbarkFiles files;
  Dice dice;
  for (const bool sealed : {false, true}) {
    CAPTURE(sealed);
    std::vector<const char*> way = {"PrefixMatchEncrypt", "RandomUpdate", "PrefixMatchDecrypt"};
    if (sealed)
      way = {"PayloadSeal", "PrefixMatchEncrypt", "RandomUpdate", "PrefixMatchDecrypt",
             "PayloadOpen"};
    e2::Engine engine(8192, 2048);
    for (const char* name : way) {
      Args args = files.args(name, sealed);
      if (std::string(name) == "RandomUpdate") {
        Args field{Args::Map{}};
        field.set("offset", 58);
        field.set("size", 1);
        field.set("min", 0);
        field.set("max", uint64_t{255});
        Args::List fields;
        fields.push_back(field);
        args = Args{Args::Map{}};
        args.set("fields", std::move(fields));
      }
      const e2::Status made = engine.create_module(name, name, args);
      REQUIRE_MESSAGE(made.ok(), made.message);
    }
    REQUIRE(engine.create_module("sink", "Sink", {}).ok());
    for (size_t i = 0; i < way.size(); ++i) {
      REQUIRE(engine.connect(way[i], 0, i + 1 < way.size() ? way[i + 1] : "sink", 0, false).ok());
    }
    Packets clear;
    for (int i = 0; i < 3000; ++i) clear.push_back(packet(dice));
    std::map<int, Packets> out;
    REQUIRE(engine.run_packets(way.front(), 0, clear, out).ok());
    uint64_t drops = 0;
    for (const char* name : way) {
      Args stats;
      REQUIRE(engine.module_command(name, "e2_stats", {}, stats).ok());
      for (const auto& drop : stats["drops"].as_map()) drops += drop.second.as_uint();
    }
    // Nearly every packet is refused: version and flags are random.
    CHECK(drops > clear.size() * 9 / 10);
    CHECK(drops <= clear.size());
    CHECK(engine.mempool()["in_use"].as_uint() == 0);
  }
}

TEST_CASE("files of maps: cut, changed, and wrong under a right checksum") {
  const std::string bytes = EmbarkFiles::map_bytes();
  e2::FileMaps maps;
  REQUIRE(e2::decode_prefix_maps(bytes, maps).ok());
  REQUIRE(maps.size() == e2::kFileMaps);
  std::string again;
  REQUIRE(e2::encode_prefix_maps({&maps[0], &maps[1], &maps[2], &maps[3]}, again).ok());
  CHECK(again == bytes);
  const auto refused = [&maps](const std::string& file) {
    // In a buffer of the exact size: a read past the end shows.
    return !e2::decode_prefix_maps(std::string(file.data(), file.size()), maps).ok();
  };
  for (size_t len = 0; len < bytes.size(); ++len) CHECK(refused(bytes.substr(0, len)));
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] ^= 1;
    CHECK(refused(changed));
  }
  CHECK(refused(bytes + '\0'));

  const auto sealed = [](std::string body) {
    const e2::Sha256Digest digest = e2::sha256(body);
    return body.append(digest.begin(), digest.end());
  };
  const std::string body = bytes.substr(0, bytes.size() - e2::kSha256Bytes);
  REQUIRE_FALSE(refused(sealed(body)));
  for (size_t len = 0; len < body.size(); ++len) CHECK(refused(sealed(body.substr(0, len))));
  CHECK(refused(sealed(body + '\0')));
  // An interval that ends where the one before does.
  e2::EncryptedPrefixes empty = maps[2];
  empty.intervals.insert(empty.intervals.begin(), empty.intervals.front());
  REQUIRE(e2::encode_prefix_maps({&maps[0], &maps[1], &empty, &maps[3]}, again).ok());
  CHECK(refused(again));
  Dice dice;
  uint32_t good = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string changed = body;
    for (uint32_t changes = 1 + dice.below(4); changes > 0; --changes) {
      const size_t reach = dice.below(2) == 0 ? 40 : changed.size();
      changed[dice.below(reach)] = dice.below(2) == 0 ? dice.byte() : '\xff';
    }
    if (refused(sealed(changed))) continue;
    ++good;
    // What was let in makes maps that can be used: each value has its interval.
    const uint8_t key[e2::kAesKeyBytes] = {};
    const e2::PrefixMap ports(maps[2], key);
    const uint64_t value = 65535;
    const uint8_t seed[e2::kAesBlock] = {};
    uint64_t encrypted = 0;
    ports.encrypt(&value, seed, &encrypted, 1);
    CHECK(encrypted <= 65535);
  }
  CHECK(good > 0);
}
