// SPDX-License-Identifier: BSD-3-Clause
// Capture files: whole, cut at every byte, and with every byte damaged.
#include <doctest/doctest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "capture_builder.h"
#include "ports/pcap_file.h"

namespace {

using namespace capture_test;  // NOLINT(google-build-using-namespace): a test's own helpers

class TemporaryFolder {
 public:
  TemporaryFolder() { REQUIRE(mkdtemp(path_) != nullptr); }
  ~TemporaryFolder() {
    unlink(file().c_str());
    rmdir(path_);
  }
  std::string file() const { return std::string(path_) + "/capture"; }
  std::string write(const Bytes& bytes) const {
    std::ofstream(file(), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return file();
  }

 private:
  char path_[32] = "/tmp/test_capture_XXXXXX";
};

struct Outcome {
  e2::Status status;
  std::vector<e2::CaptureRecord> records;
  std::vector<Bytes> packets;
};

Outcome read_all(e2::CaptureReader& reader, uint32_t capacity = 4096) {
  Outcome outcome;
  e2::CaptureRecord record;
  Bytes buffer(capacity);
  while (reader.next(record) == e2::ReadResult::kPacket &&
         reader.read_data(buffer.data(), capacity) == e2::ReadResult::kPacket) {
    outcome.records.push_back(record);
    const uint32_t n = std::min(record.captured_len, capacity);
    outcome.packets.emplace_back(buffer.begin(), buffer.begin() + n);
  }
  outcome.status = reader.status();
  return outcome;
}

Outcome read_file(const std::string& path) {
  e2::CaptureReader reader;
  e2::Status status = reader.open(path);
  if (!status.ok()) return {status, {}, {}};
  return read_all(reader);
}

void check_packets(const Outcome& outcome, bool microseconds, bool blocks) {
  REQUIRE(outcome.status.ok());
  REQUIRE(outcome.packets.size() == std::size(kLengths));
  for (uint32_t i = 0; i < std::size(kLengths); ++i) {
    CAPTURE(i);
    Builder expected;
    expected.data(i, kLengths[i]);
    CHECK(outcome.packets[i] == expected.out);
    const bool simple = blocks && i == 1;
    const bool coarse = microseconds || (blocks && i == 0);
    CHECK(outcome.records[i].time_ns == (simple ? 0 : coarse ? kTimeNs / 1000 * 1000 : kTimeNs));
    CHECK(outcome.records[i].wire_len == kLengths[i] + (simple ? 0 : i));
    CHECK(outcome.records[i].link_type == 1);
  }
}

// Whatever is cut off, the packets before the cut are read and the cut is reported.
void check_truncations(const Builder& file, size_t header_bytes) {
  const TemporaryFolder folder;
  size_t whole = 0;
  for (size_t cut = 0; cut < file.out.size(); ++cut) {
    CAPTURE(cut);
    folder.write({file.out.begin(), file.out.begin() + static_cast<std::ptrdiff_t>(cut)});
    const Outcome outcome = read_file(folder.file());
    while (file.packet_ends[whole] <= cut) ++whole;
    REQUIRE(outcome.packets.size() == whole);
    const bool clean = (whole > 0 && file.packet_ends[whole - 1] == cut) || cut == header_bytes;
    if (whole > 0 || cut <= header_bytes) REQUIRE(outcome.status.ok() == clean);
    if (!outcome.status.ok()) {
      REQUIRE(outcome.status.message.find("at byte ") != std::string::npos);
    }
  }
}

// Damage must not crash or hang the reader, whatever it makes of the content.
void check_damage(const Bytes& bytes) {
  const TemporaryFolder folder;
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const int mask : {0xff, 0x01, 0x80}) {
      CAPTURE(at);
      Bytes damaged = bytes;
      damaged[at] = static_cast<uint8_t>(damaged[at] ^ mask);
      folder.write(damaged);
      REQUIRE(read_file(folder.file()).packets.size() <= bytes.size());
    }
  }
}

}  // namespace

TEST_CASE("pcap files of both byte orders and resolutions") {
  const TemporaryFolder folder;
  for (const bool big_endian : {false, true}) {
    for (const bool nanoseconds : {false, true}) {
      folder.write(make_pcap(big_endian, nanoseconds).out);
      check_packets(read_file(folder.file()), !nanoseconds, false);
    }
  }
}

TEST_CASE("pcapng files of both byte orders, and sections of different order in one file") {
  const TemporaryFolder folder;
  Bytes both;
  for (const bool big_endian : {false, true}) {
    const Bytes bytes = make_pcapng(big_endian).out;
    folder.write(bytes);
    check_packets(read_file(folder.file()), false, true);
    both.insert(both.end(), bytes.begin(), bytes.end());
  }
  folder.write(both);
  const Outcome outcome = read_file(folder.file());
  CHECK(outcome.status.ok());
  CHECK(outcome.packets.size() == 2 * std::size(kLengths));
}

TEST_CASE("compressed captures, rewinding, and buffers that are too small") {
  const TemporaryFolder folder;
  folder.write(stored_gzip(make_pcapng(true).out));
  e2::CaptureReader reader;
  REQUIRE(reader.open(folder.file()).ok());
  for (int pass = 0; pass < 3; ++pass) {
    check_packets(read_all(reader), false, true);
    REQUIRE(reader.rewind());
  }
  const Outcome small = read_all(reader, 61);
  CHECK(small.status.ok());
  REQUIRE(small.packets.size() == std::size(kLengths));
  CHECK(small.packets[5].size() == 61);
  CHECK(small.records[5].captured_len == 200);
}

TEST_CASE("binary time resolutions") {
  const TemporaryFolder folder;
  Builder file, body;
  body.put(0x1a2b3c4d, 4);
  body.put(1, 4);
  body.put(0, 8);
  file.block(0x0a0d0d0a, body.out);
  body.out.clear();
  body.put(1, 4);
  body.put(0, 4);
  body.put(9, 2);
  body.put(1, 2);
  body.out.insert(body.out.end(), {0x80 | 20, 0, 0, 0});
  file.block(1, body.out);
  body.out.clear();
  const uint64_t time = (uint64_t{1600000000} << 20) + (1 << 18);
  body.put(0, 4);
  body.put(time >> 32, 4);
  body.put(time & 0xffffffff, 4);
  body.put(0, 8);
  file.block(6, body.out);
  folder.write(file.out);
  const Outcome outcome = read_file(folder.file());
  REQUIRE(outcome.records.size() == 1);
  CHECK(outcome.records[0].time_ns == 1600000000250000000);
}

TEST_CASE("pcap cut at any byte") { check_truncations(make_pcap(false, true), 24); }

TEST_CASE("pcapng cut at any byte") { check_truncations(make_pcapng(false), 28); }

TEST_CASE("compressed pcap cut at any byte is an error") {
  const TemporaryFolder folder;
  const Bytes bytes = stored_gzip(make_pcap(true, false).out);
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    CAPTURE(cut);
    folder.write({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(cut)});
    REQUIRE_FALSE(read_file(folder.file()).status.ok());
  }
}

TEST_CASE("damaged captures neither crash nor hang the reader") {
  check_damage(make_pcap(false, false).out);
  check_damage(make_pcapng(true).out);
}

TEST_CASE("what the writer writes, the reader reads") {
  const TemporaryFolder folder;
  e2::CaptureWriter writer;
  REQUIRE(writer.open(folder.file()).ok());
  Bytes large(200000, 0x5a);
  for (int i = 0; i < 20; ++i) REQUIRE(writer.write(kTimeNs + i, large.data(), 200000, 0));
  REQUIRE(writer.write(kTimeNs, large.data(), 10, 1500));
  REQUIRE_FALSE(writer.write(kTimeNs, large.data(), 262145, 0));
  CHECK(writer.packets_lost() == 1);
  CHECK_FALSE(writer.close().ok());  // it mentions the packet that was too long
  e2::CaptureReader reader;
  REQUIRE(reader.open(folder.file()).ok());
  const Outcome outcome = read_all(reader, 200000);
  CHECK(outcome.status.ok());
  REQUIRE(outcome.packets.size() == 21);
  CHECK(outcome.packets[19] == large);
  CHECK(outcome.records[19].time_ns == kTimeNs + 19);
  CHECK(outcome.records[20].captured_len == 10);
  CHECK(outcome.records[20].wire_len == 1500);
}

TEST_CASE("a full disk is reported, and the file ends after a whole packet") {
  const TemporaryFolder folder;
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  const rlimit limit{2000, old.rlim_max};
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  e2::CaptureWriter writer;
  REQUIRE(writer.open(folder.file()).ok());
  const Bytes data(84, 1);
  for (int i = 0; i < 50; ++i) REQUIRE(writer.write(kTimeNs, data.data(), 84, 0));
  REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  CHECK_FALSE(writer.flush());
  CHECK_FALSE(writer.write(kTimeNs, data.data(), 84, 0));
  const e2::Status status = writer.close();
  REQUIRE(setrlimit(RLIMIT_FSIZE, &old) == 0);
  signal(SIGXFSZ, old_handler);
  CHECK(status.code == EFBIG);
  CHECK(status.message.find("32 packets are lost") != std::string::npos);  // 31 buffered, 1 refused
  const Outcome outcome = read_file(folder.file());
  CHECK(outcome.status.ok());
  CHECK(outcome.packets.size() == 19);
  e2::CaptureWriter full;
  CHECK(full.open("/dev/full").code == ENOSPC);
}

TEST_CASE("paths that are no captures") {
  const TemporaryFolder folder;
  CHECK(read_file(folder.file()).status.code == ENOENT);
  CHECK(read_file("/tmp").status.message.find("not a regular file") != std::string::npos);
  CHECK(read_file(folder.write({})).status.message.find("empty") != std::string::npos);
  CHECK(read_file(folder.write(Bytes(100, 'x'))).status.message.find("neither") !=
        std::string::npos);
}
