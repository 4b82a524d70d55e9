// SPDX-License-Identifier: BSD-3-Clause
// CaptureReader and CaptureWriter: capture files, without libpcap.
//
// Reads pcap (both byte orders, microseconds and nanoseconds) and pcapng (both byte orders; section
// header, interface description with if_tsresol and if_tsoffset, enhanced, simple and old packet
// blocks; other blocks are skipped), each plain or compressed with gzip. Files are read in chunks,
// and nothing is allocated after `open`, so a worker may call every function but `open`, `close`
// and `status`. Writes pcap with nanoseconds and the Ethernet link type.
// Source: original; formats after the IETF drafts on pcap and pcapng.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "host/status.h"
#include "ports/inflate.h"

namespace e2 {

struct CaptureRecord {
  uint64_t time_ns = 0;  // since the Unix epoch; 0 where the file has no time for the packet
  uint32_t captured_len = 0;
  uint32_t wire_len = 0;
  uint32_t link_type = 0;  // 1 is Ethernet
};

enum class ReadResult : uint8_t { kPacket, kEnd, kError };

class CaptureReader {
 public:
  // Opens the file and reads its header.
  Status open(const std::string& path);
  void close();
  bool is_open() const { return source_ != nullptr; }

  // Moves to the next packet, skipping the data of the current one unless it was read.
  ReadResult next(CaptureRecord& record);
  // Reads the packet's data: as much as `capacity` bytes take, the rest is skipped. kPacket when
  // the file holds the packet whole, even if it is longer than `capacity`.
  ReadResult read_data(uint8_t* into, uint32_t capacity);
  // Back to the first packet.
  bool rewind();
  // What is wrong with the file and at which byte; success if nothing is known to be.
  Status status() const;

 private:
  static constexpr uint32_t kMaxInterfaces = 4096;

  struct Interface {
    uint32_t link_type;
    uint32_t snaplen;    // 0: no limit
    uint8_t resolution;  // as in if_tsresol
    int64_t offset_s;
  };

  ReadResult fail(const char* what, uint64_t offset);
  ReadResult fail_cut(const char* what, uint64_t offset);
  size_t available() const { return buffer_len_ - buffer_pos_; }
  const uint8_t* peek() const { return buffer_.data() + buffer_pos_; }
  bool ensure(size_t bytes);
  bool ended() const { return available() == 0 && source_->error().what == nullptr; }
  void consume(size_t bytes);
  bool take(uint8_t* into, uint64_t bytes);  // into may be nullptr: skips
  uint32_t load32(size_t at) const;
  uint16_t load16(size_t at) const;

  bool read_file_header();
  ReadResult next_record(CaptureRecord& record);
  ReadResult next_block(CaptureRecord& record);
  bool read_section(uint32_t total);
  bool read_interface(uint32_t total);
  bool read_packet_block(uint32_t type, uint32_t total, CaptureRecord& record);
  bool finish_block(uint64_t rest);

  std::string path_;
  std::unique_ptr<ByteSource> source_;
  bool compressed_ = false;
  bool block_format_ = false;  // pcapng
  bool swapped_ = false;
  bool nanoseconds_ = false;
  bool failed_ = false;
  bool has_data_ = false;   // a packet's data has not been read yet
  uint32_t link_type_ = 0;  // pcap
  uint32_t data_left_ = 0;
  uint64_t tail_left_ = 0;    // pcapng: padding and options after the data
  uint32_t block_total_ = 0;  // pcapng: length of the current block
  uint64_t record_offset_ = 0;
  uint64_t offset_ = 0;  // bytes consumed, uncompressed
  std::vector<Interface> interfaces_;
  std::vector<uint8_t> buffer_;
  size_t buffer_pos_ = 0;
  size_t buffer_len_ = 0;
  StreamError error_;
};

class CaptureWriter {
 public:
  ~CaptureWriter();
  // Creates or truncates the file and writes its header.
  Status open(const std::string& path);
  bool is_open() const { return fd_ >= 0; }
  // Appends a packet; false after a failure, or when the packet is longer than a capture allows.
  bool write(uint64_t time_ns, const uint8_t* data, uint32_t len, uint32_t wire_len);
  // Writes what is buffered. A full disk shows here, or in an earlier `write` that had to flush.
  bool flush();
  // Flushes and closes, and reports the first failure with the number of packets lost to it. The
  // file then ends after its last whole packet.
  Status close();
  uint64_t packets_lost() const { return packets_lost_; }

 private:
  std::string path_;
  int fd_ = -1;
  int error_code_ = 0;
  uint64_t file_bytes_ = 0;  // in the file by now
  uint64_t packets_lost_ = 0;
  std::vector<uint8_t> buffer_;
  size_t buffer_len_ = 0;
};

}  // namespace e2
