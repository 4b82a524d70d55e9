// SPDX-License-Identifier: BSD-3-Clause
// KeyLayout: fields of packets, gathered into keys and scattered back.
//
// A field (message Field) is `num_bytes` (1..8) bytes: at `offset` (0..1024) of the packet, or the
// metadata attribute `attr_name`. Up to 8 fields stand in a key in the order of their declaration,
// none across a border between words. Bytes beyond the end of the packet, and attributes that no
// module writes, read as 0.
//
// A value (message FieldData) is value_bin, bytes in memory order and exactly as long as the field,
// or value_int, a number that is laid out by IntOrder. Neither means 0.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "host/module.h"

namespace e2 {

constexpr uint32_t kMaxKeyFields = 8;
constexpr uint32_t kMaxFieldBytes = 8;
constexpr uint32_t kMaxFieldOffset = 1024;

constexpr uint32_t kMaxKeyWords = 16;

struct alignas(kCacheLineBytes) MatchKey {
  uint64_t words[kMaxKeyWords] = {};
  uint8_t* bytes() { return reinterpret_cast<uint8_t*>(words); }
  const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(words); }
};

// The keys of a batch in columns: words[w][i] is word w of packet i. Not initialised. Vector code
// takes kLanes keys at a time; pad() gives those past the end a value.
struct alignas(kCacheLineBytes) KeyBatch {
  static constexpr uint32_t kLanes = 8;

  KeyBatch() {}  // NOLINT(modernize-use-equals-default): a defaulted one would clear the columns
  void pad(uint32_t count, uint32_t word) {
    for (; count % kLanes != 0; ++count) words[word][count] = 0;
  }
  void set(uint32_t i, const MatchKey& key, uint32_t count) {
    for (uint32_t w = 0; w < count; ++w) words[w][i] = key.words[w];
  }

  uint64_t words[kMaxKeyWords][kMaxBatch];
};
static_assert(kMaxBatch % KeyBatch::kLanes == 0, "the last lanes are inside the column");

// How value_int is laid out: big-endian, little-endian, or big-endian in packets and little-endian
// in attributes.
enum class IntOrder : uint8_t { kBig, kLittle, kByPlace };

struct KeyField {
  bool is_attr = false;
  size_t attr_id = 0;
  std::string attr_name;
  uint32_t offset = 0;
  uint32_t size = 0;
  uint32_t pos = 0;   // in the key
  uint64_t mask = 0;  // bits that count, as a word loaded from the field
};

class KeyLayout {
 public:
  // Declares an attribute of the module; empty where only offsets are allowed.
  using Declare = std::function<size_t(const std::string& name, uint32_t size)>;

  // Declares all fields. Without masks, and where a mask is 0, all bits of a field count.
  Status init(const Args::List& fields, const Args::List& masks, const std::string& where,
              const Declare& declare);

  // Gathers one key per packet, masked; bits that are in no field are 0. Columns past words() are
  // not written.
  void load(const Module& module, const Batch& batch, KeyBatch& keys) const;
  // Scatters a key into a packet, where the masks are 1. False, and no change, when the packet is
  // too short.
  bool store(const Module& module, Packet* packet, const uint8_t* key) const;

  // Reads one FieldData per field into a zeroed key.
  Status read(const Args::List& data, IntOrder order, const std::string& where,
              MatchKey& key) const;
  // `key` must have no bit outside the fields' masks.
  Status check_masks(const MatchKey& key, const std::string& where) const;

  Args fields() const;                    // list of Field
  Args masks() const;                     // list of FieldData
  Args values(const uint8_t* key) const;  // list of FieldData
  size_t size() const { return fields_.size(); }
  bool empty() const { return fields_.empty(); }
  uint32_t words() const { return (bytes_ + 7) / 8; }  // bytes_ is up to the last field's end
  const KeyField& field(size_t i) const { return fields_[i]; }

 private:
  std::vector<KeyField> fields_;
  uint32_t bytes_ = 0;
  uint32_t needed_len_ = 0;  // of a packet, to hold all fields by offset
};

}  // namespace e2
