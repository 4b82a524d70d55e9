// SPDX-License-Identifier: BSD-3-Clause
// Capture files and gzip data: whole, cut at every byte, and with every byte damaged.
#include <doctest/doctest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "ports/inflate.h"
#include "ports/pcap_file.h"
#include "ports/spsc_ring.h"

namespace {

using Bytes = std::vector<uint8_t>;

// gzip -9 of sample_text(): one block with dynamic Huffman codes.
const uint8_t kSampleGzip[] = {
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x75, 0x95, 0x4d, 0x6a, 0x26, 0x31,
    0x0c, 0x44, 0xaf, 0xd2, 0x07, 0x98, 0x85, 0xf5, 0x53, 0x92, 0x4c, 0x4e, 0xf3, 0x11, 0x92, 0x4d,
    0x16, 0xf9, 0x08, 0x99, 0xfb, 0x8f, 0x87, 0x40, 0x4b, 0x8b, 0xca, 0xb6, 0xbb, 0x30, 0x8f, 0xa7,
    0xb2, 0xfc, 0x7c, 0xbc, 0x7e, 0xbc, 0x7d, 0x5f, 0xeb, 0xfa, 0x7c, 0xbf, 0x1e, 0xd7, 0xeb, 0xe3,
    0xf9, 0xfd, 0xf7, 0xeb, 0xed, 0xcf, 0xf5, 0xfc, 0xfc, 0x3a, 0x1f, 0x5f, 0xae, 0xe7, 0xcf, 0x6f,
    0x61, 0xbf, 0x73, 0xcb, 0xbe, 0x13, 0xca, 0x12, 0x82, 0xb2, 0xba, 0x23, 0xc6, 0x22, 0x6a, 0x89,
    0xbc, 0x23, 0xce, 0x22, 0x26, 0x91, 0x71, 0x47, 0x40, 0x23, 0x1b, 0x1b, 0x77, 0x24, 0x58, 0xc4,
    0x13, 0xe2, 0x77, 0x24, 0x59, 0x04, 0x70, 0xb3, 0x3b, 0x52, 0x2c, 0x12, 0x66, 0xd0, 0x3b, 0xb2,
    0xe9, 0x29, 0x69, 0x8d, 0x22, 0x54, 0xac, 0x58, 0xa0, 0x59, 0x84, 0xda, 0x55, 0x39, 0x07, 0x75,
    0x86, 0xfa, 0xd5, 0xed, 0xbb, 0x69, 0x84, 0x0a, 0xb6, 0x74, 0x91, 0xce, 0x50, 0xc3, 0x0e, 0xb3,
    0x31, 0x6c, 0xaa, 0x18, 0xa6, 0xde, 0xe3, 0x16, 0xea, 0x38, 0x44, 0xa2, 0xe7, 0x2d, 0x54, 0xb2,
    0x01, 0x03, 0x87, 0x4a, 0x16, 0xf1, 0x1c, 0x38, 0xd4, 0xb2, 0x6c, 0xab, 0xd1, 0x3e, 0xaa, 0x59,
    0xd3, 0x56, 0xe3, 0xa8, 0x70, 0x1c, 0xd5, 0xee, 0x9f, 0x52, 0xcd, 0x6e, 0xe2, 0x5d, 0x40, 0xa5,
    0x9a, 0x21, 0x2b, 0x7a, 0xec, 0x4a, 0x35, 0xa3, 0x76, 0xf5, 0xd8, 0x15, 0xbf, 0x54, 0x63, 0xe0,
    0x50, 0xcb, 0x5b, 0x6b, 0xd0, 0x50, 0xc9, 0x92, 0xba, 0x06, 0x0d, 0xb5, 0xac, 0x10, 0x1d, 0x34,
    0xd4, 0xf2, 0xa9, 0x85, 0x77, 0x09, 0x8d, 0x5a, 0xf6, 0xb5, 0xa3, 0x4b, 0x68, 0xd4, 0xb2, 0x57,
    0x55, 0x4f, 0xdd, 0xa8, 0x65, 0x44, 0xad, 0x9e, 0xba, 0x51, 0xcb, 0xe1, 0x39, 0x76, 0x8e, 0x51,
    0xcb, 0x29, 0x6b, 0xe0, 0x70, 0xc9, 0x58, 0x3a, 0x70, 0xa8, 0x65, 0x3d, 0x97, 0x6b, 0xe0, 0xf0,
    0x2e, 0xaf, 0xc2, 0xc0, 0xa1, 0x9a, 0xad, 0x32, 0xc7, 0x0e, 0xa4, 0x9a, 0x3d, 0x62, 0x8f, 0x25,
    0x48, 0x35, 0xc3, 0x43, 0x7a, 0xec, 0x4e, 0x35, 0x87, 0x62, 0xec, 0x1e, 0xe7, 0x65, 0xde, 0xd2,
    0x38, 0x4e, 0x2d, 0x8b, 0x96, 0x0d, 0x1c, 0x6a, 0x59, 0x57, 0x62, 0xe0, 0x50, 0xcd, 0xa7, 0xa7,
    0x39, 0x70, 0xa8, 0xe6, 0xb3, 0x09, 0x77, 0xb7, 0xd0, 0xa9, 0x66, 0x77, 0x48, 0xb7, 0xd0, 0xa9,
    0x66, 0xa8, 0x5b, 0x8f, 0xdd, 0xa9, 0xe6, 0x58, 0x36, 0x76, 0x0f, 0x7e, 0xdb, 0x19, 0x8d, 0x03,
    0x6a, 0xf9, 0xff, 0x4d, 0x6f, 0x1c, 0xf0, 0x97, 0xaf, 0x90, 0x8d, 0x03, 0xfe, 0xf4, 0xc5, 0x99,
    0x45, 0x67, 0xf8, 0xdb, 0xe7, 0x2e, 0xdd, 0x42, 0x50, 0xcd, 0xae, 0xa6, 0xdd, 0x42, 0x50, 0xcd,
    0xa7, 0xf0, 0xde, 0x63, 0x07, 0x7f, 0xfe, 0x4a, 0xc6, 0xee, 0x01, 0xd7, 0x8c, 0x41, 0x43, 0x25,
    0x97, 0xc7, 0x81, 0xf9, 0x07, 0x1c, 0x21, 0x33, 0xe7, 0x57, 0x08, 0x00, 0x00,
};

std::string sample_text() {
  std::string text;
  for (int i = 0; i < 60; ++i) {
    text += "packet " + std::to_string(i) + " of a capture, port " +
            std::to_string(i * 7919 % 65536) + "; ";
  }
  return text;
}

class BytesSource final : public e2::ByteSource {
 public:
  BytesSource(Bytes bytes, size_t chunk) : bytes_(std::move(bytes)), chunk_(chunk) {}
  size_t read(uint8_t* into, size_t max) override {
    const size_t n = std::min({max, chunk_, bytes_.size() - pos_});
    if (n > 0) std::memcpy(into, bytes_.data() + pos_, n);
    pos_ += n;
    return n;
  }
  bool rewind() override {
    pos_ = 0;
    return true;
  }

 private:
  Bytes bytes_;
  size_t chunk_;
  size_t pos_ = 0;
};

struct Inflated {
  std::string text;
  e2::StreamError error;
};

Inflated inflate(e2::ByteSource& source, size_t step = 1000) {
  Inflated result;
  Bytes buffer(step);
  while (const size_t n = source.read(buffer.data(), step)) {
    result.text.append(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(n));
  }
  result.error = source.error();
  return result;
}

Inflated inflate(const Bytes& bytes, size_t chunk = 4096) {
  e2::GzipSource source(std::make_unique<BytesSource>(bytes, chunk));
  return inflate(source);
}

Bytes sample_gzip() { return {std::begin(kSampleGzip), std::end(kSampleGzip)}; }

// A gzip member with every optional header field, made of stored blocks.
Bytes stored_gzip(const Bytes& content) {
  Bytes out = {0x1f, 0x8b, 8, 0x1f, 0, 0, 0, 0, 0, 3, 2, 0, 'x', 'y', 'n', 0, 'c', 0};
  const uint32_t header_crc = e2::crc32(0, out.data(), out.size());
  const auto put = [&out](uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
  };
  put(header_crc & 0xffff, 2);
  size_t at = 0;
  do {
    const size_t n = std::min<size_t>(content.size() - at, 60000);
    out.push_back(at + n == content.size());
    put(static_cast<uint32_t>(n), 2);
    put(~static_cast<uint32_t>(n) & 0xffff, 2);
    out.insert(out.end(), content.begin() + static_cast<std::ptrdiff_t>(at),
               content.begin() + static_cast<std::ptrdiff_t>(at + n));
    at += n;
  } while (at < content.size());
  put(e2::crc32(0, content.data(), content.size()), 4);
  put(static_cast<uint32_t>(content.size()), 4);
  return out;
}

// Builds files in either byte order.
struct Builder {
  bool big_endian = false;
  Bytes out{};
  std::vector<size_t> packet_ends{};  // where each packet is complete

  void put(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) {
      out.push_back(static_cast<uint8_t>(value >> (8 * (big_endian ? bytes - 1 - i : i))));
    }
  }
  void data(uint32_t seed, uint32_t len) {
    for (uint32_t i = 0; i < len; ++i) out.push_back(static_cast<uint8_t>(seed * 31 + i));
  }
  void block(uint32_t type, const Bytes& body) {
    const uint64_t total = body.size() + 12;
    put(type, 4);
    put(total, 4);
    out.insert(out.end(), body.begin(), body.end());
    put(total, 4);
  }
};

constexpr uint64_t kTimeNs = 1600000000123456789;
constexpr uint32_t kLengths[] = {60, 61, 62, 63, 0, 200};

Builder make_pcap(bool big_endian, bool nanoseconds) {
  Builder file{big_endian};
  file.put(nanoseconds ? 0xa1b23c4d : 0xa1b2c3d4, 4);
  file.put(2, 2);
  file.put(4, 2);
  file.put(0, 8);
  file.put(65535, 4);
  file.put(1, 4);
  for (uint32_t i = 0; i < std::size(kLengths); ++i) {
    file.put(kTimeNs / 1000000000, 4);
    file.put(kTimeNs % 1000000000 / (nanoseconds ? 1 : 1000), 4);
    file.put(kLengths[i], 4);
    file.put(kLengths[i] + i, 4);
    file.data(i, kLengths[i]);
    file.packet_ends.push_back(file.out.size());
  }
  return file;
}

Builder make_pcapng(bool big_endian) {
  Builder file{big_endian};
  Builder body{big_endian};
  body.put(0x1a2b3c4d, 4);
  body.put(1, 2);
  body.put(0, 2);
  body.put(~uint64_t{0}, 8);
  file.block(0x0a0d0d0a, body.out);
  body.out.clear();  // interface 0: microseconds
  body.put(1, 2);
  body.put(0, 2);
  body.put(0, 4);
  file.block(1, body.out);
  body.put(2, 2);  // interface 1: a name, nanoseconds, one second ahead
  body.put(3, 2);
  body.out.insert(body.out.end(), {'e', 't', 'h', 0});
  body.put(9, 2);
  body.put(1, 2);
  body.out.insert(body.out.end(), {9, 0, 0, 0});
  body.put(14, 2);
  body.put(8, 2);
  body.put(1, 8);
  body.put(0, 4);
  file.block(1, body.out);
  file.block(0x4d5a, {1, 2, 3, 4});  // unknown: to be skipped
  for (uint32_t i = 0; i < std::size(kLengths); ++i) {
    const uint32_t kind = i == 0 ? 2 : i == 1 ? 3 : 6;
    const uint64_t time = kind == 2 ? kTimeNs / 1000 : kTimeNs - 1000000000;
    const uint32_t interface = kind == 2 ? 0 : 1;
    body.out.clear();
    if (kind == 6) body.put(interface, 4);
    if (kind == 2) {
      body.put(interface, 2);
      body.put(0xffff, 2);
    }
    if (kind != 3) {
      body.put(time >> 32, 4);
      body.put(time & 0xffffffff, 4);
      body.put(kLengths[i], 4);
    }
    body.put(kLengths[i] + (kind == 3 ? 0 : i), 4);
    body.data(i, kLengths[i]);
    while (body.out.size() % 4 != 0) body.out.push_back(0);
    if (i == 5) {  // an option after the packet
      body.put(2, 2);
      body.put(4, 2);
      body.put(0, 8);
    }
    file.block(kind, body.out);
    file.packet_ends.push_back(file.out.size());
  }
  return file;
}

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
    CHECK(outcome.records[i].time_ns ==
          (simple ? 0 : coarse ? kTimeNs / 1000 * 1000 : kTimeNs));
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

TEST_CASE("crc32 matches its check value") {
  const std::string text = "123456789";
  CHECK(e2::crc32(0, reinterpret_cast<const uint8_t*>(text.data()), text.size()) == 0xcbf43926);
}

TEST_CASE("gzip data inflates whatever the chunks") {
  for (const size_t chunk : {size_t{1}, size_t{7}, size_t{100000}}) {
    const Inflated whole = inflate(sample_gzip(), chunk);
    CHECK(whole.error.what == nullptr);
    CHECK(whole.text == sample_text());
  }
}

TEST_CASE("gzip members follow each other, zeros may pad the end, and rewind starts again") {
  Bytes content(200000);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<uint8_t>(i * i >> 3);
  Bytes bytes = sample_gzip();
  const Bytes stored = stored_gzip(content);
  bytes.insert(bytes.end(), stored.begin(), stored.end());
  bytes.insert(bytes.end(), 700, 0);
  e2::GzipSource source(std::make_unique<BytesSource>(bytes, 3000));
  const std::string expected = sample_text() + std::string(content.begin(), content.end());
  for (const size_t step : {size_t{777}, size_t{1} << 20}) {
    const Inflated result = inflate(source, step);
    CHECK(result.error.what == nullptr);
    CHECK(result.text == expected);
    REQUIRE(source.rewind());
  }
  bytes.push_back('x');
  CHECK(inflate(bytes).error.what != nullptr);
}

TEST_CASE("gzip data cut at any byte is an error") {
  for (const Bytes& bytes : {sample_gzip(), stored_gzip({1, 2, 3})}) {
    for (size_t cut = 0; cut < bytes.size(); ++cut) {
      CAPTURE(cut);
      const Inflated result = inflate({bytes.begin(), bytes.begin() + static_cast<long>(cut)});
      REQUIRE(result.error.what != nullptr);
      REQUIRE(result.error.offset <= cut);
    }
  }
}

TEST_CASE("damaged gzip data never passes for good") {
  const Bytes bytes = sample_gzip();
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      CAPTURE(at);
      Bytes damaged = bytes;
      damaged[at] = static_cast<uint8_t>(damaged[at] ^ (1 << bit));
      const Inflated result = inflate(damaged);
      // Only fields without meaning for the content (time, system, text flag) may differ.
      if (result.error.what == nullptr) REQUIRE(result.text == sample_text());
      if (at >= 10) REQUIRE(result.error.what != nullptr);
    }
  }
}

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
