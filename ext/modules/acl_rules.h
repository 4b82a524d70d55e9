// SPDX-License-Identifier: BSD-3-Clause
// AclRules: an ordered list of ternary rules over 32-bit words, tried on a whole batch at once.
//
// A key has kColumns words, of which only those that some rule tests are looked at. Packets are the
// lanes of a vector and rules come one after another, so the work of a batch hardly depends on
// which packets hit which rules; it ends with the rule that decides the last packet.
#pragma once

#include <cstdint>
#include <vector>

#include "host/batch.h"

namespace e2 {

// The keys of a batch, word by word. Not initialised.
struct alignas(kCacheLineBytes) AclKeys {
  static constexpr uint32_t kColumns = 10;

  uint32_t words[kColumns][kMaxBatch];
};

struct AclRule {
  uint32_t value[AclKeys::kColumns] = {};
  uint32_t mask[AclKeys::kColumns] = {};
  bool drop = false;
};

struct AclVerdict {
  PacketMask passed = 0;
  PacketMask dropped = 0;
};

class AclRules {
 public:
  // Replaces all rules.
  void assign(const std::vector<AclRule>& rules);
  // What the first rule that holds says, for the packets of the mask; neither where none holds.
  AclVerdict scan(const AclKeys& keys, PacketMask packets) const;

  // How the kernels see the rules: for rule r and tested column c, the value and the mask are at
  // words[2 * (r * column_count + c)].
  struct View {
    const uint32_t* words;
    const uint8_t* drops;
    uint32_t rules;
    const uint8_t* columns;
    uint32_t column_count;
  };

 private:
  std::vector<uint32_t> words_;
  std::vector<uint8_t> drops_;    // per rule
  std::vector<uint8_t> columns_;  // those that a rule tests
};

}  // namespace e2
