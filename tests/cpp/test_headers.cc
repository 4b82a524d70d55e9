// SPDX-License-Identifier: BSD-3-Clause
// Tests of host/headers.h: what is found in frames, and that nothing outside them is read.
#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "host/flow_hash.h"

namespace {

using e2::Headers;
using Bytes = std::vector<uint8_t>;

void add(Bytes& to, const Bytes& more) { to.insert(to.end(), more.begin(), more.end()); }
void add16(Bytes& to, uint32_t value) {
  to.push_back(static_cast<uint8_t>(value >> 8));
  to.push_back(static_cast<uint8_t>(value));
}

Bytes ethernet(uint16_t type, const Bytes& inner, const std::vector<uint16_t>& tags = {}) {
  Bytes frame = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
  for (size_t i = 0; i < tags.size(); i++) {
    add16(frame, i + 1 < tags.size() ? 0x88a8 : 0x8100);
    add16(frame, tags[i]);
  }
  add16(frame, type);
  add(frame, inner);
  return frame;
}

Bytes ipv4(uint8_t proto, const Bytes& inner, uint16_t frag = 0, uint8_t words = 5) {
  Bytes ip = {static_cast<uint8_t>(0x40 | words), 0};
  add16(ip, static_cast<uint32_t>(words * 4 + inner.size()));
  add16(ip, 7);
  add16(ip, frag);
  add(ip, {64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2});
  ip.resize(words * 4u, 1);
  e2::store_be16(&ip[10], e2::checksum_fold(e2::checksum_add(ip.data(), ip.size())));
  add(ip, inner);
  return ip;
}

Bytes ipv6(uint8_t next, const Bytes& inner) {
  Bytes ip = {0x60, 0, 0, 0};
  add16(ip, static_cast<uint32_t>(inner.size()));
  add(ip, {next, 64});
  for (uint8_t i = 0; i < 32; i++) ip.push_back(i);
  add(ip, inner);
  return ip;
}

Bytes udp(const Bytes& payload) {
  Bytes header = {0x04, 0xd2, 0x00, 0x35};
  add16(header, static_cast<uint32_t>(8 + payload.size()));
  add16(header, 0);
  add(header, payload);
  return header;
}

Bytes tcp(uint8_t words, uint8_t flags, const Bytes& payload) {
  Bytes header = {0x00, 0x50, 0x30, 0x39, 0, 0, 0, 1, 0, 0, 0, 2};
  add(header, {static_cast<uint8_t>(words << 4), flags, 16, 0, 0, 0, 0, 0});
  header.resize(words < 5 ? 20 : words * 4u, 1);
  add(header, payload);
  return header;
}

Bytes extension(uint8_t next, uint8_t units) {
  Bytes header(8u + 8u * units, 0);
  header[0] = next;
  header[1] = units;
  return header;
}

Headers parse(const Bytes& frame) {
  return e2::parse_headers(frame.data(), static_cast<uint32_t>(frame.size()));
}

// Parses every prefix of the frame in a buffer of exactly its size, so that a memory checker sees
// any read outside, and checks that what is reported lies inside.
void check_truncations(const Bytes& frame) {
  for (uint32_t len = 0; len <= frame.size(); len++) {
    std::unique_ptr<uint8_t[]> copy(new uint8_t[len]);
    if (len > 0) std::memcpy(copy.get(), frame.data(), len);
    Headers h = e2::parse_headers(copy.get(), len);
    CAPTURE(len);
    CHECK(h.l2_len <= len);
    CHECK(h.l3_off + h.l3_len <= static_cast<int>(len));
    CHECK(h.l4_off <= len);
    CHECK(h.payload_off + h.payload_len <= static_cast<int>(len));
    if (h.payload_off != 0 && h.l4_off != 0) CHECK(h.payload_off >= h.l4_off);
    e2::FiveTuple key;
    CHECK(e2::flow_key(copy.get(), h, key) == (h.ip_version != 0));
    e2::l4_checksum(copy.get(), h);
    e2::l4_checksum_ok(copy.get(), h);
  }
}

// The Internet checksum as RFC 1071 writes it, over the pseudo header and all of the segment.
uint16_t plain_checksum(const Bytes& bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i++) sum += i % 2 == 0 ? bytes[i] << 8 : bytes[i];
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

}  // namespace

TEST_CASE("UDP over IPv4") {
  Headers h = parse(ethernet(0x0800, ipv4(17, udp({1, 2, 3}))));
  CHECK(h.l2_len == 14);
  CHECK(h.ether_type == 0x0800);
  CHECK_FALSE(h.has_vlan);
  CHECK(h.ip_version == 4);
  CHECK(h.ip_proto == 17);
  CHECK(h.l3_off == 14);
  CHECK(h.l3_len == 20);
  CHECK(h.ip_total_len == 31);
  CHECK(h.l4_off == 34);
  CHECK(h.sport == 1234);
  CHECK(h.dport == 53);
  CHECK(h.payload_off == 42);
  CHECK(h.payload_len == 3);
}

TEST_CASE("TCP with options, IPv4 with options, Ethernet padding") {
  Bytes frame = ethernet(0x0800, ipv4(6, tcp(7, 0x12, {9, 9}), 0x4000, 8));
  frame.resize(frame.size() + 5, 0);
  Headers h = parse(frame);
  CHECK(h.l3_len == 32);
  CHECK(h.l4_off == 46);
  CHECK(h.tcp_flags == 0x12);
  CHECK(h.payload_off == 74);
  CHECK(h.payload_len == 2);
  CHECK_FALSE(h.fragment);
}

TEST_CASE("VLAN stacks") {
  for (size_t depth = 0; depth <= 8; depth++) {
    CAPTURE(depth);
    std::vector<uint16_t> tags(depth, 0x2005);
    if (depth > 0) tags[0] = 0xe064;
    Headers h = parse(ethernet(0x0800, ipv4(17, udp({})), tags));
    CHECK(h.l2_len == 14 + 4 * depth);
    CHECK(h.has_vlan == (depth > 0));
    CHECK(h.vlan_tci == (depth > 0 ? 0xe064 : 0));
    CHECK(h.ether_type == 0x0800);
    CHECK(h.dport == 53);
  }
  Headers h = parse(ethernet(0x0800, ipv4(17, udp({})), std::vector<uint16_t>(9, 1)));
  CHECK(h.ether_type == 0x8100);
  CHECK(h.ip_version == 0);
}

TEST_CASE("IPv6 extension chains") {
  Bytes inner = udp({1});
  uint8_t next = 17;
  uint16_t l3_len = 40;
  for (uint8_t count = 0; count <= 8; count++) {
    CAPTURE(count);
    Headers h = parse(ethernet(0x86dd, ipv6(next, inner)));
    CHECK(h.ip_version == 6);
    CHECK(h.ip_proto == 17);
    CHECK(h.l3_len == l3_len);
    CHECK(h.l4_off == 14 + l3_len);
    CHECK(h.payload_len == 1);
    Bytes longer = extension(next, count % 3);
    l3_len = static_cast<uint16_t>(l3_len + longer.size());
    add(longer, inner);
    inner = longer;
    next = count % 2 == 0 ? 60 : 43;
  }
  Headers h = parse(ethernet(0x86dd, ipv6(next, inner)));
  CHECK(h.ip_version == 6);
  CHECK(h.ip_proto == 0);
  CHECK(h.l4_off == 0);
  CHECK(h.payload_off == 0);
}

TEST_CASE("fragments") {
  Headers first = parse(ethernet(0x0800, ipv4(17, udp(Bytes(8)), 0x2000)));
  CHECK_FALSE(first.fragment);
  CHECK(first.more_fragments);
  CHECK(first.l4_off == 34);
  Headers later = parse(ethernet(0x0800, ipv4(17, Bytes(16), 0x2002)));
  CHECK(later.fragment);
  CHECK(later.more_fragments);
  CHECK(later.l4_off == 0);
  CHECK(later.payload_off == 34);
  CHECK(later.payload_len == 16);
  CHECK(later.sport == 0);
  Bytes header = {17, 0, 0, 0x10, 0, 0, 0, 9};
  add(header, Bytes(5));
  Headers v6 = parse(ethernet(0x86dd, ipv6(44, header)));
  CHECK(v6.fragment);
  CHECK_FALSE(v6.more_fragments);
  CHECK(v6.ip_proto == 17);
  CHECK(v6.l3_len == 48);
  CHECK(v6.payload_len == 5);
}

TEST_CASE("malformed headers") {
  Bytes frame = ethernet(0x0800, ipv4(6, tcp(4, 2, {})));
  Headers h = parse(frame);
  CHECK(h.l4_off == 34);
  CHECK(h.payload_off == 0);
  frame = ethernet(0x0800, ipv4(6, tcp(5, 2, {})));
  frame[14] = 0x44;
  CHECK(parse(frame).ip_version == 0);
  frame[14] = 0x65;
  CHECK(parse(frame).ip_version == 0);
  frame[14] = 0x45;
  e2::store_be16(&frame[16], 19);
  h = parse(frame);
  CHECK(h.ip_version == 4);
  CHECK(h.l4_off == 0);
  e2::store_be16(&frame[16], 9000);
  CHECK(parse(frame).payload_len == 0);
  CHECK(e2::l4_checksum_off(parse(frame)) == 0);
}

TEST_CASE("every truncation stays inside the frame") {
  Bytes chain = extension(43, 2);
  add(chain, extension(44, 1));
  add(chain, {60, 0, 0, 1, 0, 0, 0, 9});
  add(chain, extension(6, 0));
  add(chain, tcp(8, 0x18, Bytes(9)));
  check_truncations(ethernet(0x0800, ipv4(17, udp(Bytes(7)), 0, 9), {1, 2, 3}));
  check_truncations(ethernet(0x0800, ipv4(6, tcp(10, 0x10, Bytes(3))), {5}));
  check_truncations(ethernet(0x0800, ipv4(1, Bytes(12))));
  check_truncations(ethernet(0x0800, ipv4(132, Bytes(20))));
  check_truncations(ethernet(0x86dd, ipv6(0, chain)));
  check_truncations(ethernet(0x86dd, ipv6(51, extension(17, 4))));
  check_truncations(ethernet(0x86dd, ipv6(58, Bytes(9))));
}

TEST_CASE("every single corrupted byte stays inside the frame") {
  Bytes chain = extension(43, 2);
  chain[2] = 4;
  chain[3] = 1;
  add(chain, udp(Bytes(4)));
  chain[0] = 17;
  for (const Bytes& frame : {ethernet(0x86dd, ipv6(43, chain), {1}),
                             ethernet(0x0800, ipv4(6, tcp(6, 0x10, Bytes(2)), 0, 6))}) {
    for (size_t at = 12; at < frame.size(); at++) {
      for (uint8_t value : {0x00, 0x01, 0x0f, 0x2c, 0x7f, 0x80, 0xff}) {
        Bytes changed = frame;
        changed[at] = value;
        std::unique_ptr<uint8_t[]> copy(new uint8_t[changed.size()]);
        std::memcpy(copy.get(), changed.data(), changed.size());
        Headers h = e2::parse_headers(copy.get(), static_cast<uint32_t>(changed.size()));
        CHECK(h.payload_off + h.payload_len <= static_cast<int>(changed.size()));
        e2::l4_checksum(copy.get(), h);
        e2::l4_checksum_ok(copy.get(), h);
      }
    }
  }
}

TEST_CASE("checksum_add agrees with RFC 1071 for every length") {
  Bytes bytes;
  for (uint32_t i = 0; i < 70; i++) {
    CHECK(e2::checksum_fold(e2::checksum_add(bytes.data(), bytes.size())) == plain_checksum(bytes));
    bytes.push_back(static_cast<uint8_t>(255 - 37 * i));
  }
  Bytes ones(1000, 0xff);
  CHECK(e2::checksum_fold(e2::checksum_add(ones.data(), ones.size())) == 0);
  uint32_t sum = e2::checksum_add(bytes.data(), 18);
  sum = e2::checksum_add(bytes.data() + 18, bytes.size() - 18, sum);
  CHECK(e2::checksum_fold(sum) == plain_checksum(bytes));
}

TEST_CASE("l4_checksum with pseudo headers") {
  Bytes frame = ethernet(0x0800, ipv4(17, udp({1, 2, 3})));
  Headers h = parse(frame);
  CHECK(e2::l4_checksum_off(h) == 40);
  CHECK(e2::l4_checksum_ok(frame.data(), h));  // 0 over IPv4: none
  Bytes pseudo = {10, 0, 0, 1, 10, 0, 0, 2, 0, 17, 0, 11};
  add(pseudo, udp({1, 2, 3}));
  CHECK(e2::l4_checksum(frame.data(), h) == plain_checksum(pseudo));
  e2::store_be16(&frame[40], e2::l4_checksum(frame.data(), h));
  CHECK(e2::l4_checksum_ok(frame.data(), h));
  CHECK(e2::l4_checksum(frame.data(), h) == e2::load_be16(&frame[40]));
  frame[43] ^= 1;
  CHECK_FALSE(e2::l4_checksum_ok(frame.data(), h));

  frame = ethernet(0x86dd, ipv6(6, tcp(5, 0x10, {5})));
  h = parse(frame);
  CHECK_FALSE(e2::l4_checksum_ok(frame.data(), h));
  pseudo.assign(frame.begin() + 22, frame.begin() + 54);
  add(pseudo, {0, 0, 0, 21, 0, 0, 0, 6});
  add(pseudo, tcp(5, 0x10, {5}));
  CHECK(e2::l4_checksum(frame.data(), h) == plain_checksum(pseudo));
  e2::store_be16(&frame[e2::l4_checksum_off(h)], e2::l4_checksum(frame.data(), h));
  CHECK(e2::l4_checksum_ok(frame.data(), h));

  // An echo reply of zeros: ~0 is the only right value, 0 is not.
  frame = ethernet(0x0800, ipv4(1, Bytes(8)));
  h = parse(frame);
  CHECK_FALSE(e2::l4_checksum_ok(frame.data(), h));
  CHECK(e2::l4_checksum(frame.data(), h) == 0xffff);
}

TEST_CASE("l4_checksum uses the last stop of a routing header") {
  Bytes routing = extension(17, 2);
  routing[3] = 1;
  for (size_t i = 8; i < 24; i++) routing[i] = 0xa5;
  Bytes inner = routing;
  add(inner, udp({7}));
  Bytes frame = ethernet(0x86dd, ipv6(43, inner));
  Headers h = parse(frame);
  Bytes pseudo(frame.begin() + 22, frame.begin() + 38);
  add(pseudo, Bytes(16, 0xa5));
  add(pseudo, {0, 0, 0, 9, 0, 0, 0, 17});
  add(pseudo, udp({7}));
  CHECK(e2::l4_checksum(frame.data(), h) == plain_checksum(pseudo));
}

TEST_CASE("flow keys and hashes") {
  Bytes frame = ethernet(0x0800, ipv4(17, udp({})));
  e2::FiveTuple a;
  e2::FiveTuple b;
  REQUIRE(e2::flow_key(frame.data(), parse(frame), a));
  CHECK(a.version == 4);
  CHECK(a.proto == 17);
  CHECK(a.sport == 1234);
  CHECK(a.dport == 53);
  CHECK(std::string(reinterpret_cast<char*>(a.src), 4) == std::string("\x0a\0\0\x01", 4));
  CHECK(std::string(reinterpret_cast<char*>(a.src + 4), 12) == std::string(12, '\0'));
  REQUIRE(e2::flow_key(frame.data(), parse(frame), b));
  CHECK(a == b);
  CHECK(e2::flow_hash(a) == e2::flow_hash(b));
  b.dport = 54;
  CHECK(a != b);
  CHECK(e2::flow_hash(a) != e2::flow_hash(b));
  frame = ethernet(0x0806, Bytes(28));
  CHECK_FALSE(e2::flow_key(frame.data(), parse(frame), a));
  CHECK(a.version == 0);
}
