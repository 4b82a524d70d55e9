// SPDX-License-Identifier: BSD-3-Clause
// FifoWriter: records for whoever reads a named pipe, never waiting for that reader.
//
// Records are gathered in a buffer of fixed size, and what the pipe takes at once is written. Where
// the buffer is full, or there is no reader, a record finds no room: the caller counts it as lost.
// A reader that comes later starts with the header and the next whole record.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "host/status.h"

namespace e2 {

class FifoWriter {
 public:
  FifoWriter() = default;
  ~FifoWriter() { close(); }
  FifoWriter(const FifoWriter&) = delete;
  FifoWriter& operator=(const FifoWriter&) = delete;

  // `defer`: no reader yet is no error. `reconnect`: wait for the next reader when one leaves.
  Status open(const std::string& path, std::vector<uint8_t> header, bool defer, bool reconnect);
  // Where to put the next record of that many bytes; nullptr where there is no room for it.
  uint8_t* reserve(size_t bytes);
  // Writes what the pipe takes.
  void flush();
  void close();

 private:
  int connect();

  std::string path_;
  std::vector<uint8_t> header_;
  bool reconnect_ = false;
  bool waiting_ = false;  // for a reader
  bool stuck_ = false;    // the pipe was full at the last write
  int fd_ = -1;
  uint64_t next_try_ns_ = 0;
  std::vector<uint8_t> buffer_;
  size_t buffer_len_ = 0;
};

}  // namespace e2
