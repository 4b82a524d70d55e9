// SPDX-License-Identifier: BSD-3-Clause
#include "ports/pcap_file.h"

#include <fcntl.h>
#include <net/if.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace e2 {
namespace {

constexpr size_t kBufferBytes = 256 << 10;
constexpr uint32_t kMaxCapturedBytes = 262144;  // the largest snapshot length of libpcap
constexpr uint64_t kNsPerSecond = 1000000000;

constexpr uint32_t kMagicMicroseconds = 0xa1b2c3d4;
constexpr uint32_t kMagicNanoseconds = 0xa1b23c4d;
constexpr size_t kFileHeaderBytes = 24;
constexpr size_t kRecordHeaderBytes = 16;

constexpr uint32_t kSectionBlock = 0x0a0d0d0a;
constexpr size_t kSectionStartBytes = 12;

class FileSource final : public ByteSource {
 public:
  explicit FileSource(int fd) : fd_(fd) {}
  ~FileSource() override { ::close(fd_); }
  size_t read(uint8_t* into, size_t max) override {
    if (error_.what != nullptr) return 0;
    ssize_t n;
    do {
      n = ::read(fd_, into, max);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
      error_ = {"cannot read the file", offset_, errno};
      return 0;
    }
    offset_ += static_cast<uint64_t>(n);
    return static_cast<size_t>(n);
  }
  bool rewind() override {
    if (lseek(fd_, 0, SEEK_SET) != 0) return false;
    error_ = {};
    offset_ = 0;
    return true;
  }

 private:
  int fd_;
  uint64_t offset_ = 0;
};

}  // namespace

Status CaptureReader::open(const std::string& path) {
  close();
  path_ = path;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int code = errno;
    if (code == ENOENT && if_nametoindex(path.c_str()) != 0) {
      return Status::invalid("'" + path +
                             "' is a network interface, not a capture file: give the "
                             "path of a pcap or pcapng file, or use AFPacketPort for interfaces");
    }
    return Status::error(code, "cannot open the capture '" + path + "': " + std::strerror(code));
  }
  auto file = std::make_unique<FileSource>(fd);
  struct stat info{};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return Status::invalid("the capture '" + path + "' is not a regular file");
  }
  uint8_t magic[2] = {};
  compressed_ = pread(fd, magic, 2, 0) == 2 && magic[0] == 0x1f && magic[1] == 0x8b;
  buffer_.resize(kBufferBytes);
  interfaces_.reserve(kMaxInterfaces);
  source_ = std::move(file);
  if (compressed_) source_ = std::make_unique<GzipSource>(std::move(source_));
  if (!read_file_header()) {
    const Status result = status();
    close();
    return result;
  }
  return {};
}

void CaptureReader::close() {
  source_.reset();
  interfaces_.clear();
  failed_ = has_data_ = false;
  error_ = {};
  buffer_pos_ = buffer_len_ = 0;
  offset_ = 0;
}

bool CaptureReader::rewind() {
  if (!source_->rewind()) return false;
  interfaces_.clear();
  failed_ = has_data_ = false;
  error_ = {};
  buffer_pos_ = buffer_len_ = 0;
  offset_ = 0;
  return read_file_header();
}

Status CaptureReader::status() const {
  if (error_.what == nullptr) return {};
  const bool inside_gzip = compressed_ && error_.what != source_->error().what;
  std::string message = "the capture '" + path_ + "' is damaged at byte " +
                        std::to_string(error_.offset) +
                        (inside_gzip ? " of its decompressed content: " : ": ") + error_.what;
  if (error_.code != 0) message += std::string(": ") + std::strerror(error_.code);
  return Status::error(error_.code ? error_.code : EINVAL, std::move(message));
}

ReadResult CaptureReader::fail(const char* what, uint64_t offset) {
  failed_ = true;
  has_data_ = false;
  if (error_.what == nullptr) error_ = {what, offset, 0};
  return ReadResult::kError;
}

// For when bytes are missing: the stream's own error says more where there is one.
ReadResult CaptureReader::fail_cut(const char* what, uint64_t offset) {
  if (error_.what == nullptr) error_ = source_->error();
  return fail(what, offset);
}

bool CaptureReader::ensure(size_t bytes) {
  if (available() >= bytes) return true;
  std::memmove(buffer_.data(), peek(), available());
  buffer_len_ = available();
  buffer_pos_ = 0;
  while (buffer_len_ < bytes) {
    const size_t n = source_->read(buffer_.data() + buffer_len_, buffer_.size() - buffer_len_);
    if (n == 0) return false;
    buffer_len_ += n;
  }
  return true;
}

void CaptureReader::consume(size_t bytes) {
  buffer_pos_ += bytes;
  offset_ += bytes;
}

bool CaptureReader::take(uint8_t* into, uint64_t bytes) {
  while (bytes > 0) {
    if (available() == 0 && !ensure(1)) return false;
    const size_t n = static_cast<size_t>(std::min<uint64_t>(bytes, available()));
    if (into != nullptr) {
      std::memcpy(into, peek(), n);
      into += n;
    }
    consume(n);
    bytes -= n;
  }
  return true;
}

uint32_t CaptureReader::load32(size_t at) const {
  uint32_t value;
  std::memcpy(&value, peek() + at, sizeof(value));
  return swapped_ ? __builtin_bswap32(value) : value;
}

uint16_t CaptureReader::load16(size_t at) const {
  uint16_t value;
  std::memcpy(&value, peek() + at, sizeof(value));
  return swapped_ ? __builtin_bswap16(value) : value;
}

bool CaptureReader::read_file_header() {
  swapped_ = false;
  if (!ensure(4)) {
    fail_cut(available() == 0 ? "the file is empty" : "the file ends inside its header",
             available());
    return false;
  }
  block_format_ = load32(0) == kSectionBlock;
  if (block_format_) {
    if (!ensure(kSectionStartBytes)) {
      fail_cut("the file ends inside its section header", available());
      return false;
    }
    return true;  // next_block reads the section header
  }
  for (bool swapped : {false, true}) {
    swapped_ = swapped;
    const uint32_t magic = load32(0);
    nanoseconds_ = magic == kMagicNanoseconds;
    if (nanoseconds_ || magic == kMagicMicroseconds) {
      if (!ensure(kFileHeaderBytes)) {
        fail_cut("the file ends inside its header of 24 bytes", available());
        return false;
      }
      if (load16(4) != 2) {
        fail("the pcap version is not 2.x", 4);
        return false;
      }
      link_type_ = load32(20) & 0xffff;
      consume(kFileHeaderBytes);
      return true;
    }
  }
  fail("this is neither a pcap nor a pcapng file", 0);
  return false;
}

ReadResult CaptureReader::next(CaptureRecord& record) {
  if (has_data_ && read_data(nullptr, 0) == ReadResult::kError) return ReadResult::kError;
  if (failed_) return ReadResult::kError;
  return block_format_ ? next_block(record) : next_record(record);
}

ReadResult CaptureReader::read_data(uint8_t* into, uint32_t capacity) {
  if (failed_ || !has_data_) return ReadResult::kError;
  const uint32_t wanted = into == nullptr ? 0 : std::min(capacity, data_left_);
  if (!take(into, wanted) || !take(nullptr, data_left_ - wanted)) {
    return fail_cut("the file ends inside this packet", record_offset_);
  }
  has_data_ = false;
  if (block_format_ && !finish_block(tail_left_)) return ReadResult::kError;
  return ReadResult::kPacket;
}

ReadResult CaptureReader::next_record(CaptureRecord& record) {
  record_offset_ = offset_;
  if (!ensure(kRecordHeaderBytes)) {
    if (ended()) return ReadResult::kEnd;
    return fail_cut("the file ends inside the header of this packet", record_offset_);
  }
  record.time_ns = load32(0) * kNsPerSecond + load32(4) * (nanoseconds_ ? 1ULL : 1000ULL);
  record.captured_len = load32(8);
  record.wire_len = load32(12);
  record.link_type = link_type_;
  if (record.captured_len > kMaxCapturedBytes) {
    return fail("this packet claims more than 262144 captured bytes", record_offset_);
  }
  consume(kRecordHeaderBytes);
  data_left_ = record.captured_len;
  has_data_ = true;
  return ReadResult::kPacket;
}

}  // namespace e2
