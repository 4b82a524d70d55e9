// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

namespace e2 {
namespace {

Status read_error(const std::string& path, int code) {
  return Status::error(code, "can't read '" + path + "': " + std::strerror(code));
}

Status check(int file, const std::string& path, size_t max_bytes, size_t& bytes) {
  struct stat info{};
  if (::fstat(file, &info) != 0) return read_error(path, errno);
  if (!S_ISREG(info.st_mode)) return Status::invalid("'" + path + "' is no regular file");
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return Status::error(EACCES, "'" + path +
                                     "' may be used by others than its owner; must be private: "
                                     "chmod 600");
  }
  bytes = static_cast<size_t>(info.st_size);
  if (bytes <= max_bytes) return {};
  return Status::error(EFBIG, "'" + path + "' has " + std::to_string(bytes) +
                                  " bytes; must have at most " + std::to_string(max_bytes));
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Status read_private_file(const std::string& path, size_t max_bytes, std::string& bytes) {
  // Without O_NONBLOCK, opening a pipe would wait for a writer.
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return read_error(path, errno);
  size_t size = 0;
  Status status = check(file, path, max_bytes, size);
  if (status.ok()) bytes.resize(size);
  for (size_t done = 0; status.ok() && done < size;) {
    const ssize_t n = ::read(file, bytes.data() + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) status = read_error(path, errno);
    if (n <= 0) bytes.resize(size = done);
    if (n > 0) done += static_cast<size_t>(n);
  }
  ::close(file);
  return status;
}

bool read_hex(std::string_view digits, uint8_t* bytes) {
  bool good = digits.size() % 2 == 0;
  for (size_t i = 0; good && i < digits.size(); ++i) {
    const int digit = digit_of(digits[i]);
    good = digit >= 0;
    bytes[i / 2] = static_cast<uint8_t>(bytes[i / 2] << 4 | (digit & 0xf));
  }
  return good;
}

}  // namespace e2
