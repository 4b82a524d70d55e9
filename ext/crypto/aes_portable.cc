// SPDX-License-Identifier: BSD-3-Clause
// AES without special instructions, 8 blocks side by side as 8 planes of bits: bit b of byte p in
// plane k is bit k of byte p of block b. No table, no branch and no address depends on data.
#include <algorithm>
#include <cstring>

#include "crypto/aes_kernels.h"
#include "host/headers.h"

namespace e2 {
namespace {

using Plane = uint64_t __attribute__((vector_size(16)));
using Bytes = uint8_t __attribute__((vector_size(16)));
constexpr size_t kGroup = 8;  // blocks side by side

Plane load(const uint8_t* from) {
  Plane plane;
  std::memcpy(&plane, from, sizeof plane);
  return plane;
}
void store(uint8_t* to, Plane plane) { std::memcpy(to, &plane, sizeof plane); }

template <int kShift>
void swap_bits(Plane& low, Plane& high, uint64_t mask) {
  const Plane differs = ((low >> kShift) ^ high) & Plane{mask, mask};
  high ^= differs;
  low ^= differs << kShift;
}

// Blocks to planes and back: 16 transpositions of 8 x 8 bits at once.
void transpose(Plane* x) {
  for (int i = 0; i < 8; i += 2) swap_bits<1>(x[i], x[i + 1], 0x5555555555555555U);
  for (int i : {0, 1, 4, 5}) swap_bits<2>(x[i], x[i + 2], 0x3333333333333333U);
  for (int i = 0; i < 4; ++i) swap_bits<4>(x[i], x[i + 4], 0x0f0f0f0f0f0f0f0fU);
}

// Boyar and Peralta's circuit of 115 gates. x[7] is the most significant bit.
template <typename Bits>
void sub_bytes(Bits* x) {
  const Bits x0 = x[7], x1 = x[6], x2 = x[5], x3 = x[4], x4 = x[3], x5 = x[2], x6 = x[1], x7 = x[0];
  const Bits y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5, t0 = x1 ^ x2;
  const Bits y1 = t0 ^ x7, y4 = y1 ^ x3, y12 = y13 ^ y14, y2 = y1 ^ x0, y5 = y1 ^ x6;
  const Bits y3 = y5 ^ y8, t1 = x4 ^ y12, y15 = t1 ^ x5, y20 = t1 ^ x1, y6 = y15 ^ x7;
  const Bits y10 = y15 ^ t0, y11 = y20 ^ y9, y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8;
  const Bits y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;

  const Bits t2 = y12 & y15, t4 = (y3 & y6) ^ t2, t6 = (y4 & x7) ^ t2;
  const Bits t7 = y13 & y16, t9 = (y5 & y1) ^ t7, t11 = (y2 & y7) ^ t7;
  const Bits t12 = y9 & y11, t14 = (y14 & y17) ^ t12, t16 = (y8 & y10) ^ t12;
  const Bits t21 = t4 ^ t14 ^ y20, t22 = t6 ^ t16 ^ y19;
  const Bits t23 = t9 ^ t14 ^ y21, t24 = t11 ^ t16 ^ y18;

  const Bits t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26, t29 = (t25 & t27) ^ t22;
  const Bits t30 = t23 ^ t24, t31 = t22 ^ t26, t33 = (t31 & t30) ^ t24, t34 = t23 ^ t33;
  const Bits t35 = t27 ^ t33, t36 = t24 & t35, t37 = t36 ^ t34, t38 = t27 ^ t36;
  const Bits t39 = t29 & t38, t40 = t25 ^ t39, t41 = t40 ^ t37, t42 = t29 ^ t33;
  const Bits t43 = t29 ^ t40, t44 = t33 ^ t37, t45 = t42 ^ t41;

  const Bits z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1;
  const Bits z5 = t29 & y7, z6 = t42 & y11, z7 = t45 & y17, z8 = t41 & y10, z9 = t44 & y12;
  const Bits z10 = t37 & y3, z11 = t33 & y4, z12 = t43 & y13, z13 = t40 & y5, z14 = t29 & y2;
  const Bits z15 = t42 & y9, z16 = t45 & y14, z17 = t41 & y8;

  const Bits t46 = z15 ^ z16, t48 = z5 ^ z13, t53 = z0 ^ z3, t54 = z6 ^ z7;
  const Bits t56 = z12 ^ t48, t57 = z2 ^ z12 ^ t53, t58 = z4 ^ t46, t59 = z3 ^ t54;
  const Bits t60 = t46 ^ t57, t61 = z14 ^ t57, t62 = z7 ^ z8 ^ t58, t63 = z9 ^ z10 ^ t58;
  const Bits t64 = z4 ^ t59, t65 = t61 ^ t62, t66 = z1 ^ t63, t67 = t64 ^ t65;
  const Bits s3 = t53 ^ t66;
  x[7] = t59 ^ t63;
  x[6] = t64 ^ ~s3;
  x[5] = z16 ^ z17 ^ ~t67;
  x[4] = s3;
  x[3] = z2 ^ z5 ^ t66;
  x[2] = z10 ^ z11 ^ t65;
  x[1] = t56 ^ ~t62;
  x[0] = t48 ^ ~t60;
}

Plane shift_rows(Plane x) {
  const Bytes bytes = reinterpret_cast<Bytes>(x);
  return reinterpret_cast<Plane>(
      __builtin_shufflevector(bytes, bytes, 0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11));
}
// The byte below, or two below, in the same column.
Plane next_row(Plane x) {
  const Bytes bytes = reinterpret_cast<Bytes>(x);
  return reinterpret_cast<Plane>(
      __builtin_shufflevector(bytes, bytes, 1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12));
}
Plane row_after_next(Plane x) {
  const Bytes bytes = reinterpret_cast<Bytes>(x);
  return reinterpret_cast<Plane>(
      __builtin_shufflevector(bytes, bytes, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
}

void mix_columns(Plane* x) {
  Plane next[8];
  Plane sum[8];  // a byte and the next one
  for (int k = 0; k < 8; ++k) {
    next[k] = next_row(x[k]);
    sum[k] = x[k] ^ next[k];
  }
  for (int k = 0; k < 8; ++k) {
    Plane doubled = k == 0 ? sum[7] : sum[k - 1];
    if (k == 1 || k == 3 || k == 4) doubled ^= sum[7];
    x[k] = doubled ^ next[k] ^ row_after_next(sum[k]);
  }
}

void add_round_key(const AesKey& key, int round, Plane* x) {
  for (size_t k = 0; k < 8; ++k) x[k] ^= load(key.planes(round) + k * kAesBlock);
}

void encrypt_group(const AesKey& key, Plane* x) {
  transpose(x);
  add_round_key(key, 0, x);
  for (int round = 1; round <= key.rounds(); ++round) {
    sub_bytes(x);
    for (int k = 0; k < 8; ++k) x[k] = shift_rows(x[k]);
    if (round < key.rounds()) mix_columns(x);
    add_round_key(key, round, x);
  }
  transpose(x);
}

void blocks_portable(const AesKey& key, const uint8_t* in, uint8_t* out, size_t blocks) {
  for (size_t first = 0; first < blocks; first += kGroup) {
    const size_t count = std::min(kGroup, blocks - first);
    Plane x[kGroup] = {};
    for (size_t i = 0; i < count; ++i) x[i] = load(in + (first + i) * kAesBlock);
    encrypt_group(key, x);
    for (size_t i = 0; i < count; ++i) store(out + (first + i) * kAesBlock, x[i]);
  }
}

void ctr_portable(const AesKey& key, const uint8_t* nonce, uint32_t counter, const uint8_t* in,
                  uint8_t* out, size_t len) {
  uint8_t stream[kGroup * kAesBlock];
  for (size_t done = 0; done < len; done += sizeof stream) {
    for (size_t i = 0; i < kGroup; ++i) {
      std::memcpy(stream + i * kAesBlock, nonce, kGcmNonceBytes);
      store_be32(stream + i * kAesBlock + kGcmNonceBytes, counter++);
    }
    blocks_portable(key, stream, stream, kGroup);
    const size_t part = std::min(sizeof stream, len - done);
    for (size_t i = 0; i < part; ++i) out[done + i] = in[done + i] ^ stream[i];
  }
}

// The low half of a product without carries. Every fourth bit at a time: up to 15 ones that meet
// in a bit then spill into the three bits above, which the mask takes off, and never further.
uint64_t multiply_low(uint64_t a, uint64_t b) {
  constexpr uint64_t kEveryFourth = 0x1111111111111111U;
  uint64_t product = 0;
  for (int bit = 0; bit < 4; ++bit) {
    uint64_t sum = 0;
    for (int i = 0; i < 4; ++i) {
      sum ^= (a & (kEveryFourth << i)) * (b & (kEveryFourth << ((bit - i) & 3)));
    }
    product |= sum & (kEveryFourth << bit);
  }
  return product;
}

uint64_t reverse_bits(uint64_t x) {
  x = (x >> 1 & 0x5555555555555555U) | (x & 0x5555555555555555U) << 1;
  x = (x >> 2 & 0x3333333333333333U) | (x & 0x3333333333333333U) << 2;
  x = (x >> 4 & 0x0f0f0f0f0f0f0f0fU) | (x & 0x0f0f0f0f0f0f0f0fU) << 4;
  return __builtin_bswap64(x);
}

struct Product {
  uint64_t low;
  uint64_t high;
};

Product multiply_full(uint64_t a, uint64_t b) {
  return {multiply_low(a, b), reverse_bits(multiply_low(reverse_bits(a), reverse_bits(b))) >> 1};
}

struct Element {
  uint64_t low;
  uint64_t high;
};

// a * b * x^-128 modulo x^128 + x^127 + x^126 + x^121 + 1.
Element multiply(Element a, Element b) {
  const Product low = multiply_full(a.low, b.low);
  const Product high = multiply_full(a.high, b.high);
  const Product cross = multiply_full(a.low ^ a.high, b.low ^ b.high);
  uint64_t words[4] = {low.low, low.high, high.low, high.high};
  words[1] ^= cross.low ^ low.low ^ high.low;
  words[2] ^= cross.high ^ low.high ^ high.high;
  for (int i = 0; i < 2; ++i) {  // a multiple of the polynomial that clears the lowest word
    const uint64_t w = words[i];
    words[i + 1] ^= w << 63 ^ w << 62 ^ w << 57;
    words[i + 2] ^= w ^ w >> 1 ^ w >> 2 ^ w >> 7;
  }
  return {words[2], words[3]};
}

Element load_element(const uint8_t* from) {
  return {__builtin_bswap64(load_be64(from)), __builtin_bswap64(load_be64(from + 8))};
}
void store_element(uint8_t* to, Element element) {
  store_be64(to, __builtin_bswap64(element.low));
  store_be64(to + 8, __builtin_bswap64(element.high));
}

void ghash_portable(const GcmKey& key, uint8_t* state, const uint8_t* data, size_t blocks) {
  const Element power = load_element(key.power(1));
  Element sum = load_element(state);
  for (size_t i = 0; i < blocks; ++i, data += kAesBlock) {
    sum.high ^= load_be64(data);
    sum.low ^= load_be64(data + 8);
    sum = multiply(sum, power);
  }
  store_element(state, sum);
}

}  // namespace

const AesKernels kAesPortable = {blocks_portable, ctr_portable, ghash_portable, nullptr, nullptr};

void aes_planes(const uint8_t* round_key, uint8_t* planes) {
  Plane x[kGroup];
  for (Plane& plane : x) plane = load(round_key);
  transpose(x);
  for (size_t k = 0; k < kGroup; ++k) store(planes + k * kAesBlock, x[k]);
}

uint32_t aes_sub_word(uint32_t word) {
  uint32_t x[8] = {};
  for (uint32_t bit = 0; bit < 32; ++bit) x[bit % 8] |= (word >> bit & 1) << bit / 8;
  sub_bytes(x);
  uint32_t result = 0;
  for (uint32_t bit = 0; bit < 32; ++bit) result |= (x[bit % 8] >> bit / 8 & 1) << bit;
  return result;
}

void polyval_multiply(uint8_t* a, const uint8_t* b) {
  store_element(a, multiply(load_element(a), load_element(b)));
}

}  // namespace e2
