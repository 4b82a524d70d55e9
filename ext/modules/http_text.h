// SPDX-License-Identifier: BSD-3-Clause
// The lines of an HTTP/1 request, as far as modules read them.
#pragma once

#include <cstdint>
#include <cstring>

namespace e2 {

inline uint8_t lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }

struct Text {
  const char* start;
  const char* end;
};

// Cuts the next line off the front; false where no line is complete.
inline bool next_line(Text& rest, Text& line) {
  const void* found = std::memchr(rest.start, '\n', static_cast<size_t>(rest.end - rest.start));
  if (found == nullptr) return false;
  const char* newline = static_cast<const char*>(found);
  line = {rest.start, newline};
  if (line.end > line.start && line.end[-1] == '\r') line.end--;
  rest.start = newline + 1;
  return true;
}

// The value of a Host line; false for any other line.
inline bool host_value(Text line, Text& host) {
  static const char kName[] = "host:";
  constexpr long kNameBytes = sizeof kName - 1;
  if (line.end - line.start < kNameBytes) return false;
  for (long i = 0; i < kNameBytes; i++) {
    if (lower(static_cast<uint8_t>(line.start[i])) != static_cast<uint8_t>(kName[i])) return false;
  }
  host = {line.start + kNameBytes, line.end};
  while (host.start < host.end && (*host.start == ' ' || *host.start == '\t')) host.start++;
  while (host.start < host.end && (host.end[-1] == ' ' || host.end[-1] == '\t')) host.end--;
  return true;
}

// The target of a request line, METHOD TARGET HTTP/1.x; false for any other line.
inline bool request_target(Text line, Text& target) {
  static const char kVersion[] = " HTTP/1.";
  constexpr long kVersionBytes = sizeof kVersion;  // with a digit in the place of its end
  const char* method = line.start;
  while (method < line.end && *method > ' ' && *method < 0x7f) method++;
  if (method == line.start || method == line.end || *method != ' ') return false;
  target.start = method + 1;
  if (line.end - target.start <= kVersionBytes) return false;
  target.end = line.end - kVersionBytes;
  if (std::memcmp(target.end, kVersion, sizeof kVersion - 1) != 0) return false;
  if (line.end[-1] < '0' || line.end[-1] > '9') return false;
  return std::memchr(target.start, ' ', static_cast<size_t>(target.end - target.start)) == nullptr;
}

// Whether a line that is not complete may become a request line.
inline bool may_be_request(Text line) {
  constexpr long kLongestMethod = 32;
  const char* at = line.start;
  while (at < line.end && *at > ' ' && *at < 0x7f) at++;
  return at - line.start <= kLongestMethod && (at == line.end || (at > line.start && *at == ' '));
}

enum class HttpProgress : uint8_t { kStopped, kMore, kDone, kNoHttp };

// Reads the start of a stream and calls `on_host(target, host)` for each Host line behind the
// request line. kStopped: on_host said true; kMore: the headers go on; kDone: they ended.
template <typename OnHost>
HttpProgress read_request_start(Text stream, OnHost on_host) {
  Text line;
  Text target;
  do {
    if (next_line(stream, line)) continue;
    return may_be_request(stream) ? HttpProgress::kMore : HttpProgress::kNoHttp;
  } while (line.start == line.end);
  if (!request_target(line, target)) return HttpProgress::kNoHttp;
  while (next_line(stream, line)) {
    if (line.start == line.end) return HttpProgress::kDone;
    Text host;
    if (host_value(line, host) && on_host(target, host)) return HttpProgress::kStopped;
  }
  return HttpProgress::kMore;
}

}  // namespace e2
