// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "ports/pcap_file.h"
#include "ports/pcap_format.h"

namespace e2 {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

}  // namespace

CaptureWriter::~CaptureWriter() {
  if (fd_ >= 0) ::close(fd_);
}

Status CaptureWriter::open(const std::string& path) {
  path_ = path;
  // A pipe that nobody reads, or reads slowly, is an error: neither a call nor a worker may wait.
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644);
  if (fd_ < 0) {
    const int code = errno;
    const char* why = code == ENXIO ? "nobody reads that pipe" : std::strerror(code);
    return Status::error(code, "cannot create the capture '" + path + "': " + why);
  }
  error_code_ = 0;
  file_bytes_ = packets_lost_ = 0;
  buffer_.resize(kBufferBytes);
  write_pcap_header(buffer_.data());
  buffer_len_ = sizeof(PcapFileHeader);
  return flush() ? Status{} : close();
}

bool CaptureWriter::write(uint64_t time_ns, const uint8_t* data, uint32_t len, uint32_t wire_len) {
  if (error_code_ != 0 || len > kPcapSnaplen) {
    ++packets_lost_;
    return false;
  }
  const size_t needed = pcap_record_bytes(len);
  if (buffer_len_ + needed > buffer_.size() && !flush()) {
    ++packets_lost_;
    return false;
  }
  write_pcap_record(buffer_.data() + buffer_len_, time_ns, data, len, wire_len);
  buffer_len_ += needed;
  return true;
}

bool CaptureWriter::flush() {
  size_t done = 0;
  while (done < buffer_len_ && error_code_ == 0) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_len_ - done);
    if (n > 0) {
      done += static_cast<size_t>(n);
    } else if (n == 0) {
      error_code_ = ENOSPC;
    } else if (errno != EINTR) {
      error_code_ = errno;
    }
  }
  if (error_code_ != 0 && file_bytes_ > 0) {  // the buffer starts with a packet
    size_t whole = 0;
    for (size_t at = 0; at < buffer_len_;) {
      PcapRecordHeader header;
      std::memcpy(&header, buffer_.data() + at, sizeof(header));
      at += sizeof(header) + header.captured_len;
      if (at <= done)
        whole = at;
      else
        ++packets_lost_;
    }
    // A file that cannot be shortened (a device) keeps its half packet; nothing else can be done.
    if (ftruncate(fd_, static_cast<off_t>(file_bytes_ + whole)) == 0) done = whole;
  }
  file_bytes_ += done;
  buffer_len_ = 0;
  return error_code_ == 0;
}

Status CaptureWriter::close() {
  if (fd_ < 0) return {};
  flush();
  const int closed = ::close(fd_);
  if (closed != 0 && error_code_ == 0) error_code_ = errno;
  fd_ = -1;
  if (error_code_ != 0) {
    return Status::error(error_code_, "cannot write the capture '" + path_ + "' beyond byte " +
                                          std::to_string(file_bytes_) + ": " +
                                          std::strerror(error_code_) + "; " +
                                          std::to_string(packets_lost_) + " packets are lost");
  }
  if (packets_lost_ != 0) {
    return Status::error(EMSGSIZE, std::to_string(packets_lost_) + " packets are longer than the " +
                                       "262144 bytes that the capture '" + path_ + "' allows");
  }
  return {};
}

}  // namespace e2
