// SPDX-License-Identifier: BSD-3-Clause
// EspEncrypt and EspDecrypt under fire: packets are sealed, changed, cut, lengthened and opened,
// and what a peer with the key may seal, which need not be a packet at all; files are changed and
// cut. What is checked is that no packet is lost or made up, that nothing comes out that did not go
// in, and, under sanitizers, that nothing is read or written out of bounds.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "cpp/embark_files.h"
#include "engine/engine.h"
#include "host/headers.h"
#include "nf/esp.h"

namespace {

using e2::Args;
using Packets = std::vector<std::string>;

struct Dice {
  e2::Random random;
  uint32_t below(size_t range) { return random.below(range); }
  char byte() { return static_cast<char>(random.next() >> 56); }
};

// A file of SAs that is there as long as this is.
class SaFile {
 public:
  explicit SaFile(const std::string& text) {
    const int file = ::mkstemp(path_.data());
    REQUIRE(file >= 0);
    ::close(file);
    EmbarkFiles::write_private(path_, text);
  }
  ~SaFile() { ::unlink(path_.c_str()); }
  SaFile(const SaFile&) = delete;
  SaFile& operator=(const SaFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/e2-esp-XXXXXX";
};

std::string line(bool ipv6, const char* flags, size_t digits = 40) {
  return "0x100 " + std::string(digits, '5') +
         (ipv6 ? " 2001:db8::1 2001:db8::2 " : " 192.0.2.1 192.0.2.2 ") + flags + "\n";
}

// A module that takes packets, and what it did with them.
struct Runner {
  Runner(const char* module_class, const std::string& file) : engine(8192, 2048) {
    Args args{Args::Map{}};
    args.set("sa_file", file);
    const e2::Status made = engine.create_module("m", module_class, args);
    REQUIRE_MESSAGE(made.ok(), made.message);
  }
  Packets run(const Packets& packets) {
    std::map<int, Packets> out;
    REQUIRE(engine.run_packets("m", 0, packets, out).ok());
    return out[0];
  }
  uint64_t drops() {
    uint64_t sum = 0;
    Args stats;
    REQUIRE(engine.module_command("m", "e2_stats", {}, stats).ok());
    for (const auto& drop : stats["drops"].as_map()) sum += drop.second.as_uint();
    return sum;
  }
  e2::Engine engine;
};

std::string packet(Dice& dice) {
  std::string frame(12, '\x02');
  if (dice.below(4) == 0) frame += std::string("\x81\x00\x00\x07", 4);
  std::string body(dice.below(dice.below(8) == 0 ? 1300 : 80), '\0');
  for (char& byte : body) byte = dice.byte();
  if (dice.below(2) == 0) {
    frame += std::string("\x86\xdd\x60\x00\x00\x00", 6);
    frame += {static_cast<char>(body.size() >> 8), static_cast<char>(body.size()), '\x11', '\x09'};
    for (int i = 0; i < 32; ++i) frame += dice.byte();
  } else {
    const size_t options = dice.below(4) == 0 ? 4 * dice.below(11) : 0;
    const size_t total = 20 + options + body.size();
    frame += std::string("\x08\x00", 2);
    frame += {static_cast<char>(0x45 + options / 4), dice.byte()};
    frame += {static_cast<char>(total >> 8), static_cast<char>(total), dice.byte(), dice.byte()};
    frame += std::string(14 + options, '\1');
  }
  frame += body;
  return frame;
}

std::string mutate(std::string frame, Dice& dice) {
  const uint32_t changes = 1 + dice.below(3);
  for (uint32_t i = 0; i < changes && frame.size() > 14; ++i) {
    const size_t reach = dice.below(3) == 0 ? frame.size() : std::min<size_t>(frame.size(), 80);
    const size_t at = dice.below(reach);
    switch (dice.below(6)) {
      case 0:
        frame[at] = dice.byte();
        break;
      case 1:
        frame[at] ^= static_cast<char>(1 << dice.below(8));
        break;
      case 2:
        frame.erase(at, 1 + dice.below(16));
        break;
      case 3:
        frame.insert(at, 1 + dice.below(16), dice.byte());
        break;
      case 4:
        frame.resize(at);
        break;
      default:
        frame[at] = dice.below(2) == 0 ? '\0' : '\xff';
    }
  }
  return frame;
}

// What a peer that has the key seals: anything.
std::string sealed_by_hand(const e2::EspSa& sa, std::string text, uint32_t number) {
  text.resize((text.size() + 3) / 4 * 4);
  const size_t total = 20 + e2::kEspHeadBytes + text.size() + e2::kGcmTagBytes;
  std::string frame(14 + total, '\0');
  auto* const ip = reinterpret_cast<uint8_t*>(frame.data()) + 14;
  e2::store_be16(ip - 2, e2::kEtherIpv4);
  e2::store_be64(ip, uint64_t{0x45} << 56 | uint64_t{total} << 32);
  ip[9] = e2::kProtoEsp;
  std::copy(sa.dst, sa.dst + 4, ip + 16);
  uint8_t* const esp = ip + 20;
  e2::store_be32(esp, sa.spi);
  e2::store_be32(esp + 4, number);
  e2::store_be64(esp + 8, number);
  uint8_t nonce[e2::kGcmNonceBytes];
  uint8_t aad[e2::kMaxEspAadBytes];
  sa.nonce(esp + 8, nonce);
  const uint32_t aad_bytes = sa.aad(number, aad);
  uint8_t* const to = esp + e2::kEspHeadBytes;
  e2::gcm_seal(sa.key, nonce, aad, aad_bytes, reinterpret_cast<const uint8_t*>(text.data()), to,
               text.size(), to + text.size());
  return frame;
}

// What no mutation can change without being found: the IP packet but for congestion marks, which
// come from outside, and the checksum over them.
std::string sealed_part(const std::string& frame) {
  const e2::Headers h = e2::parse_ip_headers(reinterpret_cast<const uint8_t*>(frame.data()),
                                             static_cast<uint32_t>(frame.size()));
  std::string packet = frame.substr(h.l3_off);
  packet[1] = 0;
  if (h.ip_version == 4) packet[10] = packet[11] = 0;
  return packet;
}

}  // namespace

TEST_CASE("ESP, mutated: none lost, none made up, and only what was sealed comes out") {
  for (const bool ipv6 : {false, true}) {
    for (const char* flags : {"", "esn"}) {
      CAPTURE(ipv6);
      CAPTURE(flags);
      const SaFile file(line(ipv6, flags, ipv6 ? 72 : 40));
      Dice dice;
      Packets clear;
      for (int i = 0; i < 400; ++i) clear.push_back(packet(dice));
      for (int i = 0; i < 100; ++i) clear.push_back(mutate(packet(dice), dice));
      Runner encrypt("EspEncrypt", file.path());
      const Packets sealed = encrypt.run(clear);
      CHECK(sealed.size() + encrypt.drops() == clear.size());
      REQUIRE(sealed.size() > 400);
      Runner all("EspDecrypt", file.path());
      const Packets opened = all.run(sealed);
      CHECK(opened.size() == sealed.size());

      std::set<std::string> known;
      for (const std::string& frame : opened) known.insert(sealed_part(frame));
      Packets mutants;
      for (int i = 0; i < 10000; ++i) {
        mutants.push_back(mutate(sealed[dice.below(sealed.size())], dice));
      }
      Runner decrypt("EspDecrypt", file.path());
      uint64_t passed = 0;
      for (size_t at = 0; at < mutants.size(); at += 500) {
        const auto from = mutants.begin() + static_cast<long>(at);
        for (const std::string& frame : decrypt.run({from, from + 500})) {
          ++passed;
          CHECK(known.count(sealed_part(frame)) == 1);
        }
      }
      CHECK(passed + decrypt.drops() == mutants.size());
      CHECK(passed > 0);
      CHECK(passed <= sealed.size());  // each sequence number once
      CHECK(decrypt.engine.mempool()["in_use"].as_uint() == 0);
    }
  }
}

TEST_CASE("ESP that is authentic and anything: none lost, and what passes is an IP packet") {
  const SaFile file(line(false, ""));
  e2::EspSas sas;
  REQUIRE(e2::read_esp_sas(file.path(), sas).ok());
  Dice dice;
  Runner decrypt("EspDecrypt", file.path());
  uint64_t passed = 0;
  uint32_t number = 0;
  for (int round = 0; round < 40; ++round) {
    Packets packets;
    for (int i = 0; i < 250; ++i) {
      std::string text = packet(dice).substr(14);
      if (dice.below(2) == 0) text = mutate(text, dice);
      if (dice.below(4) == 0) text.resize(dice.below(30));
      const auto padding = static_cast<uint8_t>(-(text.size() + 2) & 3);
      for (uint8_t n = 1; n <= padding; ++n) text += static_cast<char>(n);
      text += dice.below(8) == 0 ? dice.byte() : static_cast<char>(padding);
      constexpr char kNext[] = {4, 41, 59, 17, 4, 41};
      text += kNext[dice.below(sizeof kNext)];
      packets.push_back(sealed_by_hand(*sas.front(), text, ++number));
    }
    for (const std::string& frame : decrypt.run(packets)) {
      const e2::Headers h = e2::parse_ip_headers(reinterpret_cast<const uint8_t*>(frame.data()),
                                                 static_cast<uint32_t>(frame.size()));
      CHECK(frame.size() >= 34);
      CHECK(h.l2_len == 14);
      ++passed;
    }
  }
  CHECK(passed > 500);
  CHECK(passed + decrypt.drops() == number);
  CHECK(decrypt.engine.mempool()["in_use"].as_uint() == 0);
}

TEST_CASE("files of SAs, cut and changed: read or refused") {
  const std::string text = line(false, "esn") + "# a comment\n\n0xabcdef " + std::string(72, 'a') +
                           "\t2001:db8::1 2001:db8::2 no-anti-replay # end";
  e2::EspSas sas;
  {
    const SaFile file(text);
    REQUIRE(e2::read_esp_sas(file.path(), sas).ok());
    REQUIRE(sas.size() == 2);
  }
  Dice dice;
  uint32_t good = 0;
  uint32_t bad = 0;
  for (int i = 0; i < 3000; ++i) {
    const SaFile file(mutate(text, dice));
    e2::EspSas found;
    const bool read = e2::read_esp_sas(file.path(), found).ok();
    ++(read ? good : bad);
    if (read) CHECK(!found.empty());
  }
  CHECK(good > 100);
  CHECK(bad > 100);
}
