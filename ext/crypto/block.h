// SPDX-License-Identifier: BSD-3-Clause
// Block: 16 bytes of a cipher as one value, loaded from and stored to anywhere.
#pragma once

#include <cstdint>
#include <cstring>

namespace e2 {

using Block = uint64_t __attribute__((vector_size(16)));

inline Block load_block(const uint8_t* from) {
  Block block;
  std::memcpy(&block, from, sizeof block);
  return block;
}
inline void store_block(uint8_t* to, Block block) { std::memcpy(to, &block, sizeof block); }
inline void xor_block(uint8_t* to, const uint8_t* from) {
  store_block(to, load_block(to) ^ load_block(from));
}

}  // namespace e2
