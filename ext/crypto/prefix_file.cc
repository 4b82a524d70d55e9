// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/prefix_file.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "crypto/private_file.h"
#include "crypto/sha256.h"
#include "host/headers.h"

namespace e2 {
namespace {

constexpr char kMagic[] = "E2PM\x01";
constexpr size_t kMagicBytes = 5;
constexpr size_t kIntervalBytes = 20;
constexpr size_t kMapHeadBytes = 6;
constexpr size_t kMaxFileBytes = 256u << 20;
constexpr uint32_t kDomains[kFileMaps] = {128, 128, 16, 16};
constexpr const char* kFields[kFileMaps] = {"source address", "destination address", "source port",
                                            "destination port"};

Status domain_error(size_t field, uint32_t bits) {
  return Status::invalid("the map of the " + std::string(kFields[field]) + " has a domain of " +
                         std::to_string(bits) + " bits; must have " +
                         std::to_string(kDomains[field]));
}

// What is left of the file's contents.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}

  bool has(size_t bytes) const { return left_.size() >= bytes; }
  bool at_end() const { return left_.empty(); }
  const uint8_t* take(size_t bytes) {
    const auto* from = reinterpret_cast<const uint8_t*>(left_.data());
    left_.remove_prefix(bytes);
    return from;
  }

 private:
  std::string_view left_;
};

Wide load_wide(const uint8_t* from) {
  return static_cast<Wide>(load_be64(from)) << 64 | load_be64(from + 8);
}

Status decode_map(Reader& reader, size_t field, EncryptedPrefixes& map) {
  const std::string where = "the map of the " + std::string(kFields[field]);
  if (!reader.has(kMapHeadBytes)) return Status::invalid(where + " is missing");
  const uint8_t* head = reader.take(kMapHeadBytes);
  map.domain_bits = head[0];
  map.prefix_bits = head[1];
  const size_t count = load_be32(head + 2);
  if (map.domain_bits != kDomains[field]) return domain_error(field, map.domain_bits);
  if (map.prefix_bits == 0 || map.prefix_bits > kMaxPrefixBits ||
      map.prefix_bits > map.domain_bits) {
    return Status::invalid(where + " has prefixes of " + std::to_string(map.prefix_bits) +
                           " bits; must have 1 to " +
                           std::to_string(std::min(kMaxPrefixBits, map.domain_bits)));
  }
  if (count == 0 || !reader.has(count * kIntervalBytes)) {
    return Status::invalid(where + " says that it has " + std::to_string(count) +
                           " intervals and has not");
  }
  const Wide end = map.domain_bits == kMaxDomainBits ? ~Wide{0} : (Wide{1} << map.domain_bits) - 1;
  map.intervals.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* bytes = reader.take(kIntervalBytes);
    EncryptedPrefixes::Interval& interval = map.intervals[i];
    interval.last = load_wide(bytes);
    interval.prefix = load_be32(bytes + sizeof(Wide));
    const bool ascends = i == 0 || interval.last > map.intervals[i - 1].last;
    if (!ascends || interval.last > end || (i + 1 == count && interval.last != end)) {
      return Status::invalid(where + ": intervals must ascend to the end of the domain; number " +
                             std::to_string(i) + " does not");
    }
    if (interval.prefix >> map.prefix_bits != 0) {
      return Status::invalid(where + ": the prefix of interval " + std::to_string(i) +
                             " has more than " + std::to_string(map.prefix_bits) + " bits");
    }
  }
  return {};
}

Status file_error(const std::string& what, const std::string& path) {
  return Status::error(errno, "can't " + what + " '" + path + "': " + std::strerror(errno));
}

bool write_all(int file, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::write(file, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return ::fsync(file) == 0;
}

}  // namespace

Status encode_prefix_maps(const std::vector<const EncryptedPrefixes*>& maps, std::string& bytes) {
  if (maps.size() != kFileMaps) return Status::invalid("there must be 4 maps");
  bytes.assign(kMagic, kMagicBytes);
  for (size_t field = 0; field < kFileMaps; ++field) {
    const EncryptedPrefixes& map = *maps[field];
    if (map.domain_bits != kDomains[field]) return domain_error(field, map.domain_bits);
    uint8_t head[kMapHeadBytes] = {static_cast<uint8_t>(map.domain_bits),
                                   static_cast<uint8_t>(map.prefix_bits)};
    store_be32(head + 2, static_cast<uint32_t>(map.intervals.size()));
    bytes.append(reinterpret_cast<const char*>(head), sizeof head);
    for (const EncryptedPrefixes::Interval& interval : map.intervals) {
      uint8_t one[kIntervalBytes];
      store_be64(one, static_cast<uint64_t>(interval.last >> 64));
      store_be64(one + 8, static_cast<uint64_t>(interval.last));
      store_be32(one + 16, interval.prefix);
      bytes.append(reinterpret_cast<const char*>(one), sizeof one);
    }
  }
  const Sha256Digest digest = sha256(bytes);
  bytes.append(reinterpret_cast<const char*>(digest.data()), digest.size());
  return {};
}

Status decode_prefix_maps(const std::string& bytes, FileMaps& maps) {
  if (bytes.compare(0, kMagicBytes, kMagic, kMagicBytes) != 0) {
    return Status::invalid("it holds no prefix maps of version 1");
  }
  const size_t body = bytes.size() - std::min(bytes.size(), kSha256Bytes);
  const Sha256Digest digest = sha256(std::string_view(bytes).substr(0, body));
  if (bytes.compare(body, kSha256Bytes, reinterpret_cast<const char*>(digest.data()),
                    kSha256Bytes) != 0) {
    return Status::invalid("it is cut or was changed: its checksum is wrong");
  }
  Reader reader(std::string_view(bytes).substr(kMagicBytes, body - kMagicBytes));
  FileMaps decoded(kFileMaps);
  for (size_t field = 0; field < kFileMaps; ++field) {
    Status status = decode_map(reader, field, decoded[field]);
    if (!status.ok()) return status;
  }
  if (!reader.at_end()) return Status::invalid("there is more behind its maps");
  maps = std::move(decoded);
  return {};
}

Status write_prefix_maps(const std::string& path,
                         const std::vector<const EncryptedPrefixes*>& maps) {
  std::string bytes;
  Status status = encode_prefix_maps(maps, bytes);
  if (!status.ok()) return status;
  std::string temporary = path + ".XXXXXX";
  const int file = ::mkstemp(temporary.data());  // private to its owner
  if (file < 0) return file_error("write", path);
  const bool written = write_all(file, bytes);
  if (!written) status = file_error("write", path);
  ::close(file);
  if (written && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = file_error("write", path);
  }
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

Status read_prefix_maps(const std::string& path, FileMaps& maps) {
  std::string bytes;
  Status status = read_private_file(path, kMaxFileBytes, bytes);
  if (status.ok()) status = decode_prefix_maps(bytes, maps);
  if (!status.ok() && status.code == EINVAL) status.message = "'" + path + "': " + status.message;
  return status;
}

}  // namespace e2
