// SPDX-License-Identifier: BSD-3-Clause
#include "ports/fifo_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "engine/clock.h"

namespace e2 {
namespace {

constexpr size_t kBufferBytes = 1 << 18;
constexpr int kPipeBytes = 1 << 20;  // the most that a user without privileges may ask for
constexpr uint64_t kRetryNs = 100'000'000;

}  // namespace

Status FifoWriter::open(const std::string& path, std::vector<uint8_t> header, bool defer,
                        bool reconnect) {
  path_ = path;
  header_ = std::move(header);
  reconnect_ = reconnect;
  if (path.empty()) return Status::invalid("'fifo' must name a pipe, as made by mkfifo");
  struct stat at;
  if (::stat(path.c_str(), &at) != 0) {
    return Status::error(errno, "cannot open the pipe '" + path + "': " + std::strerror(errno));
  }
  if (!S_ISFIFO(at.st_mode)) {
    return Status::invalid("'" + path +
                           "' is no named pipe; the hook class Capture writes to a file");
  }
  buffer_.resize(kBufferBytes);
  const int code = connect();
  if (code == 0) return {};
  if (code == ENXIO && defer) {
    waiting_ = true;
    return {};
  }
  return Status::error(code,
                       "cannot open the pipe '" + path + "': " +
                           (code == ENXIO ? "nobody reads it; set 'defer' to wait for a reader"
                                          : std::strerror(code)));
}

int FifoWriter::connect() {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd_ < 0) return errno;
  (void)fcntl(fd_, F_SETPIPE_SZ, kPipeBytes);  // a larger one loses less; any will do
  waiting_ = false;
  std::memcpy(buffer_.data(), header_.data(), header_.size());
  buffer_len_ = header_.size();
  return 0;
}

uint8_t* FifoWriter::reserve(size_t bytes) {
  if (fd_ < 0) {
    if (!waiting_) return nullptr;
    const uint64_t now_ns = monotonic_ns();
    if (now_ns < next_try_ns_) return nullptr;
    next_try_ns_ = now_ns + kRetryNs;
    if (connect() != 0) return nullptr;
  }
  if (bytes > buffer_.size() - buffer_len_ && !stuck_) flush();
  if (fd_ < 0 || bytes > buffer_.size() - buffer_len_) return nullptr;
  uint8_t* at = buffer_.data() + buffer_len_;
  buffer_len_ += bytes;
  return at;
}

void FifoWriter::flush() {
  size_t done = 0;
  stuck_ = false;
  while (fd_ >= 0 && done < buffer_len_) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_len_ - done);
    if (n > 0) {
      done += static_cast<size_t>(n);
    } else if (n < 0 && errno == EAGAIN) {
      stuck_ = true;
      break;
    } else if (n == 0 || errno != EINTR) {
      ::close(fd_);  // the reader has left
      fd_ = -1;
      waiting_ = reconnect_;
      done = buffer_len_;
    }
  }
  buffer_len_ -= done;
  if (buffer_len_ != 0 && done != 0) {
    std::memmove(buffer_.data(), buffer_.data() + done, buffer_len_);
  }
}

void FifoWriter::close() {
  flush();
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  waiting_ = false;
}

}  // namespace e2
