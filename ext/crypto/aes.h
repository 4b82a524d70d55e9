// SPDX-License-Identifier: BSD-3-Clause
// AES-128 and AES-256: blocks under one key, counter mode, Galois/counter mode.
//
// To do this                        call that
//   a pseudorandom function           aes_blocks, one block or thousands in one call
//   encryption without a tag          aes_ctr
//   encryption with a tag             gcm_seal, gcm_open
//
// Three implementations, chosen when first used (host/isa.h): bitsliced C++ (8 blocks side by side,
// no table and no branch on data, so constant in time), AES-NI with PCLMULQDQ, and VAES with
// VPCLMULQDQ on 512-bit vectors. Many blocks in one call is what makes them fast: a block waits 10
// times for the AES unit, which meanwhile takes others. Keys wipe themselves when they go.
//
// Sources: FIPS 197; NIST SP 800-38A and 800-38D; E. Käsper, P. Schwabe, "Faster and timing-attack
// resistant AES-GCM" (the planes); J. Boyar, R. Peralta, "A depth-16 circuit for the AES S-box";
// RFC 8452 (GHASH in terms of POLYVAL, which suits carry-less multiplication).
#pragma once

#include <cstddef>
#include <cstdint>

namespace e2 {

constexpr size_t kAesBlock = 16;
constexpr size_t kAesKeyBytes = 16;
constexpr size_t kAes256KeyBytes = 32;
constexpr size_t kGcmNonceBytes = 12;
constexpr size_t kGcmTagBytes = 16;

class alignas(64) AesKey {
 public:
  static constexpr int kRounds = 10;      // of AES-128
  static constexpr int kLongRounds = 14;  // of AES-256

  // `bytes` is kAesKeyBytes or kAes256KeyBytes.
  explicit AesKey(const uint8_t* key, size_t bytes = kAesKeyBytes);
  ~AesKey();
  AesKey(const AesKey&) = delete;
  AesKey& operator=(const AesKey&) = delete;

  int rounds() const { return count_; }
  bool is_long() const { return count_ == kLongRounds; }
  const uint8_t* round(int i) const { return rounds_[i]; }
  // Round key i as the bitsliced kernel takes it: 8 planes of a block each.
  const uint8_t* planes(int i) const { return planes_[i]; }

 private:
  alignas(64) uint8_t rounds_[kLongRounds + 1][kAesBlock] = {};
  int count_;
  alignas(64) uint8_t planes_[kLongRounds + 1][8 * kAesBlock] = {};
};

class alignas(64) GcmKey {
 public:
  // How many blocks the kernels take between two reductions, and how many at the end: text that is
  // shorter, its lengths, and up to 3 blocks of what is authenticated only.
  static constexpr int kStride = 16;
  static constexpr int kPowers = kStride + 4;

  explicit GcmKey(const uint8_t* key, size_t bytes = kAesKeyBytes);
  ~GcmKey();
  GcmKey(const GcmKey&) = delete;
  GcmKey& operator=(const GcmKey&) = delete;

  const AesKey& aes() const { return aes_; }
  // The hash key to the power n (1 .. kPowers) as POLYVAL has it; lower powers follow, then zeros.
  const uint8_t* power(int n) const { return powers_[kPowers - n]; }

 private:
  AesKey aes_;
  alignas(64) uint8_t powers_[kPowers + 4][kAesBlock] = {};
};

// out[i] = AES(in[i]); in and out may be the same.
void aes_blocks(const AesKey& key, const uint8_t* in, uint8_t* out, size_t blocks);

// XORs `in` with AES(nonce ‖ counter), AES(nonce ‖ counter + 1), ... The nonce has 12 bytes, the
// counter, 32 bits big-endian, must not wrap. in and out may be the same.
void aes_ctr(const AesKey& key, const uint8_t* nonce, uint32_t counter, const uint8_t* in,
             uint8_t* out, size_t len);

// Longest text of one seal: the counter has 32 bits.
constexpr uint64_t kGcmMaxBytes = ((uint64_t{1} << 32) - 2) * kAesBlock;

// A nonce may serve once under a key. in and out may be the same.
void gcm_seal(const GcmKey& key, const uint8_t* nonce, const uint8_t* aad, size_t aad_len,
              const uint8_t* in, uint8_t* out, size_t len, uint8_t* tag);

// False, and nothing written, where the tag is wrong. in and out may be the same.
[[nodiscard]] bool gcm_open(const GcmKey& key, const uint8_t* nonce, const uint8_t* aad,
                            size_t aad_len, const uint8_t* in, uint8_t* out, size_t len,
                            const uint8_t* tag);

}  // namespace e2
