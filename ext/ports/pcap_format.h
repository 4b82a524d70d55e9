// SPDX-License-Identifier: BSD-3-Clause
// What a pcap file (nanoseconds) and a pcapng file consist of, written in this machine's byte order
// with the Ethernet link type.
// Source: the IETF drafts on pcap and pcapng.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace e2 {

constexpr uint32_t kPcapSnaplen = 262144;
constexpr uint32_t kPcapEthernet = 1;

struct PcapFileHeader {
  uint32_t magic = 0xa1b23c4d;  // nanoseconds
  uint16_t major = 2;
  uint16_t minor = 4;
  uint32_t zone = 0;
  uint32_t accuracy = 0;
  uint32_t snaplen = kPcapSnaplen;
  uint32_t link_type = kPcapEthernet;
};

struct PcapRecordHeader {
  uint32_t seconds;
  uint32_t nanoseconds;
  uint32_t captured_len;
  uint32_t wire_len;
};

inline void write_pcap_header(uint8_t* to) {
  const PcapFileHeader header;
  std::memcpy(to, &header, sizeof(header));
}

constexpr size_t pcap_record_bytes(uint32_t len) { return sizeof(PcapRecordHeader) + len; }

// `wire_len` counts where it is more than `len`.
inline void write_pcap_record(uint8_t* to, uint64_t time_ns, const uint8_t* data, uint32_t len,
                              uint32_t wire_len) {
  constexpr uint64_t kNsPerSecond = 1000000000;
  const PcapRecordHeader header = {static_cast<uint32_t>(time_ns / kNsPerSecond),
                                   static_cast<uint32_t>(time_ns % kNsPerSecond), len,
                                   std::max(len, wire_len)};
  std::memcpy(to, &header, sizeof(header));
  std::memcpy(to + sizeof(header), data, len);
}

constexpr uint32_t kMostPcapngComment = 1024;
constexpr size_t kPcapngHeaderBytes = 28 + 32;
constexpr uint32_t pad4(uint32_t bytes) { return (bytes + 3) & ~3u; }

inline void write_pcapng_header(uint8_t* to) {
  const uint32_t section[] = {0x0a0d0d0a, 28, 0x1a2b3c4d, 1, 0xffffffff, 0xffffffff, 28};
  // One interface; option 9 (if_tsresol) says 10^-9 s.
  const uint32_t interface[] = {1, 32, kPcapEthernet, kPcapSnaplen, 9 | 1u << 16, 9, 0, 32};
  static_assert(sizeof(section) + sizeof(interface) == kPcapngHeaderBytes, "as announced");
  std::memcpy(to, section, sizeof(section));
  std::memcpy(to + sizeof(section), interface, sizeof(interface));
}

constexpr size_t pcapng_packet_bytes(uint32_t len, uint32_t comment_len) {
  return 32 + pad4(len) + (comment_len != 0 ? 8 + pad4(comment_len) : 0);
}

// An enhanced packet block, with a comment unless that is empty.
inline void write_pcapng_packet(uint8_t* to, uint64_t time_ns, const uint8_t* data, uint32_t len,
                                uint32_t wire_len, const char* comment, uint32_t comment_len) {
  const auto total = static_cast<uint32_t>(pcapng_packet_bytes(len, comment_len));
  const uint32_t head[] = {6,
                           total,
                           0,
                           static_cast<uint32_t>(time_ns >> 32),
                           static_cast<uint32_t>(time_ns),
                           len,
                           std::max(len, wire_len)};
  std::memset(to, 0, total);
  std::memcpy(to, head, sizeof(head));
  std::memcpy(to + sizeof(head), data, len);
  if (comment_len != 0) {
    uint8_t* option = to + sizeof(head) + pad4(len);
    const uint32_t kind = 1 | comment_len << 16;  // opt_comment; zeros end the options
    std::memcpy(option, &kind, sizeof(kind));
    std::memcpy(option + sizeof(kind), comment, comment_len);
  }
  std::memcpy(to + total - sizeof(total), &total, sizeof(total));
}

}  // namespace e2
