// SPDX-License-Identifier: BSD-3-Clause
// What an implementation of AES has to offer; aes.cc makes the rest of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "crypto/aes.h"

namespace e2 {

struct AesKernels {
  void (*blocks)(const AesKey& key, const uint8_t* in, uint8_t* out, size_t blocks);
  void (*ctr)(const AesKey& key, const uint8_t* nonce, uint32_t counter, const uint8_t* in,
              uint8_t* out, size_t len);
  // Takes whole blocks into the hash's state (as POLYVAL has it: bytes in reverse).
  void (*ghash)(const GcmKey& key, uint8_t* state, const uint8_t* data, size_t blocks);
  // gcm_seal, and the tag of what gcm_open got; nullptr where the operations above do as well.
  void (*seal)(const GcmKey& key, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
               const uint8_t* in, uint8_t* out, size_t len, uint8_t* tag);
  void (*tag)(const GcmKey& key, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
              const uint8_t* text, size_t len, uint8_t* tag);
};

extern const AesKernels kAesPortable;
#if defined(__x86_64__)
extern const AesKernels kAesNi;
extern const AesKernels kAesVaes;
#endif

// Planes of a round key, and of the word that a key schedule substitutes; constant in time.
void aes_planes(const uint8_t* round_key, uint8_t* planes);
uint32_t aes_sub_word(uint32_t word);
// a = a * b * x^-128 in POLYVAL's field, in 16 bytes, least significant first.
void polyval_multiply(uint8_t* a, const uint8_t* b);

}  // namespace e2
