// SPDX-License-Identifier: BSD-3-Clause
// HeaderEncryptor's second half: a whole group through the ciphers, and the new headers.
#include "crypto/block.h"
#include "modules/header_encryptor.h"

namespace e2 {
namespace {

// The kernels are made for 32 values: from here on, a few of no meaning cost less than the way
// around.
constexpr uint32_t kWorthFilling = 8;

uint32_t filled_lanes(EncryptGroup& group, bool ipv6) {
  const uint32_t count = group.count;
  if (count < kWorthFilling || count == kMaxBatch) return count;
  const size_t rest = kMaxBatch - count;
  for (uint32_t i = 0; i < (ipv6 ? 3 : 1); ++i) {
    std::memset(group.tuples[i] + count * kAesBlock, 0, rest * kAesBlock);
  }
  for (uint32_t i = 0; i < 2; ++i) {
    std::memset(group.clear4[i] + count, 0, rest * sizeof(uint32_t));
    std::memset(group.ports[i] + count, 0, rest * sizeof(uint64_t));
  }
  return kMaxBatch;
}

// CBC-MAC over three blocks.
void chain_blocks(const AesKey& key, const uint8_t (*blocks)[kMaxBatch * kAesBlock], uint32_t count,
                  uint8_t* seeds) {
  aes_blocks(key, blocks[0], seeds, count);
  for (uint32_t block = 1; block < 3; ++block) {
    for (size_t at = 0; at < count * kAesBlock; at += kAesBlock) {
      xor_block(seeds + at, blocks[block] + at);
    }
    aes_blocks(key, seeds, seeds, count);
  }
}

bool is_of(const EncryptReturns& returns, const ReturnTable::Flow& flow) {
  if (returns.sources.empty()) return true;
  for (const EncryptReturns::Prefix& prefix : returns.sources) {
    uint8_t differs = prefix.ipv6 != flow.ipv6 ? 1 : 0;
    for (size_t at = 0; at < sizeof prefix.bytes; ++at) {
      differs |= static_cast<uint8_t>((flow.src[at] ^ prefix.bytes[at]) & prefix.mask[at]);
    }
    if (differs == 0) return true;
  }
  return false;
}

uint64_t ones_of_address(const uint8_t* address) {
  return ones_word(address) + ones_word(address + 4) + ones_word(address + 8) +
         ones_word(address + 12);
}

}  // namespace

template <bool kIpv6>
void HeaderEncryptor::encrypt(EncryptGroup& group) const {
  const SiteKeys& keys = *plan_.keys;
  const uint32_t lanes = filled_lanes(group, kIpv6);
  alignas(64) uint8_t seeds[kMaxBatch * kAesBlock];
  if (kIpv6) {
    chain_blocks(keys.flow6, group.tuples, lanes, seeds);
    plan_.maps[kSrcAddress]->encrypt_wide(group.tuples[0], seeds, group.src, lanes);
    plan_.maps[kDstAddress]->encrypt_wide(group.tuples[1], seeds, group.dst, lanes);
  } else {
    aes_blocks(keys.flow4, group.tuples[0], seeds, lanes);
    plan_.maps[kSrcAddress]->encrypt_ipv4(group.clear4[0], seeds, group.src, lanes);
    plan_.maps[kDstAddress]->encrypt_ipv4(group.clear4[1], seeds, group.dst, lanes);
  }
  // Without a pool there is no NAT.
  const bool remembers = returns_.table != nullptr && !plan_.pool.empty();
  if (remembers) {
    for (uint32_t i = 0; i < group.count; ++i) returns_.table->prefetch(group.src + i * kAesBlock);
  }
  Pooled pooled;
  uint64_t clear[2][kMaxBatch];
  if (!plan_.pool.empty()) std::memcpy(clear, group.ports, sizeof clear);
  plan_.maps[kSrcPort]->encrypt(group.ports[0], seeds, group.ports[0], lanes);
  plan_.maps[kDstPort]->encrypt(group.ports[1], seeds, group.ports[1], lanes);
  if (!plan_.pool.empty()) pooled = use_pool<kIpv6>(group, clear);
  hide_fragment_ids(group, seeds);
  const TextLayout& layout = kIpv6 ? kText6 : kText4;
  if (group.common) {
    write_checks<true>(group, layout);
    ccm_seal(keys.header, group.texts, group.count, layout.bytes);
    write<true, kIpv6>(group);
  } else {
    write_checks<false>(group, layout);
    ccm_seal(keys.header, group.texts, group.count, group.text_len);
    write<false, kIpv6>(group);
  }
  if (remembers) note_sources<kIpv6>(group, clear, pooled);
}

template <bool kIpv6>
void HeaderEncryptor::note_sources(const EncryptGroup& group, const uint64_t (*clear)[kMaxBatch],
                                   Pooled pooled) const {
  const PacketMask others = pooled.from | (returns_.clients ? 0 : pooled.to);
  for (PacketMask left = mask_of(group.count) & ~others; left != 0; left &= left - 1) {
    const auto i = static_cast<uint32_t>(__builtin_ctz(left));
    const uint8_t* const encrypted = group.src + i * kAesBlock;
    if (returns_.table->noted(encrypted, now_)) continue;
    // What a NAT translates, or what a load balancer keeps together.
    const BodyShape shape = group.items[i].shape;
    const bool client = (pooled.to >> i & 1) != 0;
    const bool ports = has_ports(shape.kind) || (shape.kind == BodyKind::kQuery && !client);
    if (!ports || (shape.flags & kFlagFragment) != 0) continue;
    ReturnTable::Flow flow = {};
    const uint8_t* const tuple = group.tuples[0] + i * kAesBlock;
    std::memcpy(flow.src, tuple, kIpv6 ? 16 : 4);
    std::memcpy(flow.dst, kIpv6 ? group.tuples[1] + i * kAesBlock : tuple + 4, kIpv6 ? 16 : 4);
    flow.sport = static_cast<uint16_t>(clear[0][i]);
    flow.dport = static_cast<uint16_t>(clear[1][i]);
    flow.protocol = shape.protocol;
    flow.ipv6 = kIpv6;
    if (!client && !is_of(returns_, flow)) continue;
    returns_.table->note(encrypted, flow, now_);
  }
}

uint16_t encrypt_source(const EncryptPlan& plan, const ReturnTable::Flow& flow, uint8_t* address) {
  const uint64_t ports = __builtin_bswap16(flow.sport) | uint64_t{__builtin_bswap16(flow.dport)}
                                                             << 16;
  const uint64_t last = ports | uint64_t{flow.protocol} << 32 | uint64_t{flow.ipv6 ? 6U : 4U} << 40;
  uint8_t blocks[3][kMaxBatch * kAesBlock] = {};
  uint8_t seed[kAesBlock];
  if (flow.ipv6) {
    std::memcpy(blocks[0], flow.src, kAesBlock);
    std::memcpy(blocks[1], flow.dst, kAesBlock);
    std::memcpy(blocks[2], &last, sizeof last);
    chain_blocks(plan.keys->flow6, blocks, 1, seed);
    plan.maps[kSrcAddress]->encrypt_wide(flow.src, seed, address, 1);
  } else {
    std::memcpy(blocks[0], flow.src, 4);
    std::memcpy(blocks[0] + 4, flow.dst, 4);
    std::memcpy(blocks[0] + 8, &last, sizeof last);
    aes_blocks(plan.keys->flow4, blocks[0], seed, 1);
    const uint32_t src = load_be32(flow.src);
    plan.maps[kSrcAddress]->encrypt_ipv4(&src, seed, address, 1);
  }
  uint64_t port = flow.sport;
  plan.maps[kSrcPort]->encrypt(&port, seed, &port, 1);
  return static_cast<uint16_t>(port);
}

template <bool kCommon>
inline void HeaderEncryptor::write_checks(EncryptGroup& group, const TextLayout& layout) const {
  uint8_t* const row = group.texts.text[layout.checks / kAesBlock] + layout.checks % kAesBlock;
  for (uint32_t i = 0; i < group.count; ++i) {
    const size_t at = i * kAesBlock;
    const BodyKind kind = group.items[i].shape.kind;
    const bool ports = kCommon || has_ports(kind);
    const bool query = !kCommon && kind == BodyKind::kQuery;
    const uint16_t src = address_check(group.src + at, ports || query ? group.ports[0][i] : 0);
    const uint16_t dst = address_check(group.dst + at, ports ? group.ports[1][i] : 0);
    store_be32(row + at, uint32_t{src} << 16 | dst);
  }
}

// Addresses of the pool are the same in all flows; behind a NAT so are ports.
template <bool kIpv6>
HeaderEncryptor::Pooled HeaderEncryptor::use_pool(EncryptGroup& group,
                                                  const uint64_t (*clear)[kMaxBatch]) const {
  Pooled pooled;
  for (uint32_t way = 0; way < 2; ++way) {
    uint8_t* const encrypted = way == 0 ? group.src : group.dst;
    for (uint32_t i = 0; i < group.count; ++i) {
      const uint32_t number = kIpv6 ? plan_.pool.find_clear(group.tuples[way] + i * kAesBlock)
                                    : plan_.pool.find_ipv4(group.clear4[way][i]);
      if (number == AddressPool::kNone) continue;
      (way == 0 ? pooled.from : pooled.to) |= PacketMask{1} << i;
      const AddressPool::Entry& entry = plan_.pool[number];
      std::memcpy(encrypted + i * kAesBlock, entry.encrypted.data(), kAesBlock);
      if (entry.nat && group.items[i].shape.kind == BodyKind::kQuery)
        group.ports[0][i] = clear[0][i];
      if (entry.nat) group.ports[way][i] = clear[way][i];
    }
  }
  return pooled;
}

// A datagram's pieces have one number, from which nothing about the old one can be told.
void HeaderEncryptor::hide_fragment_ids(EncryptGroup& group, const uint8_t* seeds) const {
  for (uint32_t i = 0; i < group.count; ++i) {
    EncryptItem& item = group.items[i];
    if ((item.shape.flags & kFlagFragment) == 0) continue;
    uint8_t block[kAesBlock];
    std::memcpy(block, seeds + i * kAesBlock, sizeof block);
    store_be32(block, load_be32(block) ^ item.fragment_id);
    aes_blocks(plan_.keys->flow4, block, block, 1);
    item.fragment_id = load_be32(block);
  }
}

template <bool kCommon, bool kIpv6>
inline void HeaderEncryptor::write(EncryptGroup& group) const {
  constexpr uint32_t kUsual = kIpv6 ? kText6.bytes : kText4.bytes;
  const uint32_t text_len = kCommon ? kUsual : group.text_len;
  const uint32_t count = group.count;
  const uint64_t epoch = plan_.epoch;
  const MacPair macs = load_macs(frame_.macs);
  for (uint32_t i = 0; i < count; ++i) {
    const EncryptItem& item = group.items[i];
    const BodyShape shape = item.shape;
    const uint8_t* const src = group.src + i * kAesBlock;
    const uint8_t* const dst = group.dst + i * kAesBlock;
    const bool sealed = (shape.flags & (kFlagSealed | kFlagSealedHere)) != 0;
    const bool fragment = !kCommon && (shape.flags & kFlagFragment) != 0;
    const bool query = !kCommon && shape.kind == BodyKind::kQuery;
    const bool ports = kCommon || has_ports(shape.kind);
    const uint32_t option = kTextAt + text_len + (sealed ? kSealBytes : 0);
    const uint32_t payload = option + (fragment ? kFragmentBytes : 0) + shape.len;
    uint8_t* const body = item.body;
    const auto both = static_cast<uint32_t>(group.ports[0][i] << 16 | group.ports[1][i]);
    if (kCommon || shape.summed) {
      uint64_t sum = item.sum;
      if (ports) sum += __builtin_bswap32(both);
      if (query) sum += __builtin_bswap16(static_cast<uint16_t>(both >> 16));
      if (kCommon || shape.protocol != kProtoIcmp) {
        sum += ones_of_address(src) + ones_of_address(dst);
      }
      const bool udp = shape.kind == BodyKind::kUdp;
      auto checksum = static_cast<uint16_t>(~ones_fold(sum));
      if (checksum == 0 && udp) checksum = 0xffff;
      const uint32_t checksum_at = kCommon ? (udp ? 6 : 16) : body_checksum_at(shape.kind);
      store_be16(body + checksum_at, checksum);
    }
    if (ports) store_be32(body, both);
    if (query) store_be16(body + 4, static_cast<uint16_t>(both >> 16));

    uint8_t* const ether = body - (kEthernetBytes + kIpv6Bytes + payload - shape.len);
    const auto before = static_cast<int64_t>(item.packet->data() - ether);
    if (kCommon || before >= 0) {
      item.packet->prepend(static_cast<uint32_t>(before));
    } else {
      item.packet->adj(static_cast<uint32_t>(-before));
    }
    item.packet->trim(item.packet->len() - kEthernetBytes - kIpv6Bytes - payload);
    store_macs(ether, macs);
    store_be16(ether + 12, kEtherIpv6);
    uint8_t* const ip = ether + kEthernetBytes;
    const uint64_t label = (load_be32(src + 12) ^ load_be32(dst + 12)) & 0xfffff;
    store_be64(ip, uint64_t{6} << 60 | uint64_t{shape.traffic_class} << 52 | label << 32 |
                       uint64_t{payload} << 16 | kProtoDestinationOptions << 8 | shape.hop_limit);
    std::memcpy(ip + 8, src, kAesBlock);
    std::memcpy(ip + 24, dst, kAesBlock);
    uint8_t* const head = ip + kIpv6Bytes;
    const uint64_t first =
        uint64_t{fragment ? kProtoFragment : shape.protocol} | uint64_t{option / 8 - 1} << 8 |
        uint64_t{kExperimentalOption} << 16 | uint64_t{option - kOptionAt} << 24 |
        uint64_t{static_cast<uint8_t>(kWireVersion << 4 | shape.flags)} << 32 | epoch << 40;
    std::memcpy(head, &first, sizeof first);
    group.texts.get_nonce(i, head + kNonceAt);
    std::memcpy(head + kTagAt, group.texts.tag(i), kCcmTagBytes);
    if (text_len == kUsual) {
      group.texts.get_text(i, head + kTextAt, kUsual);
    } else {
      group.texts.get_text(i, head + kTextAt, text_len);
    }
    if (sealed) std::memcpy(head + kTextAt + text_len, item.seal, kSealBytes);
    if (fragment) {
      uint8_t* const piece = head + option;
      piece[0] = shape.protocol;
      piece[1] = 0;
      store_be16(piece + 2, item.fragment);
      store_be32(piece + 4, item.fragment_id);
    }
  }
}

template void HeaderEncryptor::encrypt<false>(EncryptGroup& group) const;
template void HeaderEncryptor::encrypt<true>(EncryptGroup& group) const;

}  // namespace e2
