// SPDX-License-Identifier: BSD-3-Clause
// What Embark's keys and headers are made with, against published vectors and another AES: SHA-256,
// HMAC, HKDF, CCM; ReplayGuard and Nonces against plain sets; sums of every length and alignment.
// Which kernels run is up to E2_ISA; tests/unit/test_cpp.py runs this file under each.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "crypto/ccm.h"
#include "crypto/nonces.h"
#include "crypto/replay_guard.h"
#include "crypto/sha256.h"
#include "host/checksum.h"

namespace {

using namespace e2;
using Bytes = std::vector<uint8_t>;

constexpr uint8_t kKey[kAesKeyBytes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

std::string hex(const uint8_t* bytes, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    text += "0123456789abcdef"[bytes[i] >> 4];
    text += "0123456789abcdef"[bytes[i] & 15];
  }
  return text;
}
template <typename T>
std::string hex(const T& bytes) {
  return hex(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

uint8_t pattern(size_t i, uint32_t salt) {
  return static_cast<uint8_t>((static_cast<uint32_t>(i) + salt) * 2654435761U >> 13);
}

}  // namespace

TEST_CASE("SHA-256: FIPS 180-4's messages and those around the ends of blocks") {
  CHECK(hex(sha256("")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hex(sha256(std::string(1000000, 'a'))) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  // The digests of all messages of 0 to 200 zeros, together: by Python's hashlib.
  std::string all;
  for (size_t len = 0; len <= 200; ++len) {
    const Sha256Digest digest = sha256(std::string(len, '\0'));
    all.append(digest.begin(), digest.end());
  }
  CHECK(hex(sha256(all)) == "b9c4ebeeb7d1825824131cf7b7d28469cca4f9166473bf51bb519365ae27eccd");
}

TEST_CASE("HMAC-SHA-256: RFC 4231") {
  CHECK(hex(hmac_sha256(std::string(20, '\x0b'), "Hi There")) ==
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  CHECK(hex(hmac_sha256("Jefe", "what do ya want for nothing?")) ==
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CHECK(hex(hmac_sha256(std::string(20, '\xaa'), std::string(50, '\xdd'))) ==
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
  CHECK(hex(hmac_sha256(std::string(131, '\xaa'),
                        "Test Using Larger Than Block-Size Key - Hash Key First")) ==
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST_CASE("HKDF: RFC 5869, as far as one block of output goes") {
  std::string salt;
  std::string info;
  for (char c = 0; c <= 0x0c; ++c) salt += c;
  for (int c = 0xf0; c <= 0xf9; ++c) info += static_cast<char>(c);
  const Sha256Digest first = hkdf_extract(salt, std::string(22, '\x0b'));
  CHECK(hex(first) == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
  uint8_t out[kSha256Bytes];
  hkdf_expand(first, info, out, sizeof out);
  CHECK(hex(out, sizeof out) == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
  const Sha256Digest third = hkdf_extract("", std::string(22, '\x0b'));
  CHECK(hex(third) == "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04");
  hkdf_expand(third, "", out, 16);
  CHECK(hex(out, 16) == "8da4e775a563c18f715f802a063c5a31");
}

namespace {

// CCM with key 00..0f and nonce 40..4b, of pattern(i, 1) with pattern(i, 7) to authenticate; the
// first 32 bytes of the text and the tag, by pycryptodome.
struct CcmVector {
  size_t len, aad;
  const char* text;
  const char* tag;
};
constexpr CcmVector kCcmVectors[] = {
    {1, 3, "cb", "ac834065666e69e3"},
    {15, 3, "cbf89ec134df0aea059175c0a84cea", "43e3d8951095adce"},
    {16, 3, "cbf89ec134df0aea059175c0a84cea20", "0efb71770601971e"},
    {22, 3, "cbf89ec134df0aea059175c0a84cea20f88e5820e6a0", "5509ff1a64fec32a"},
    {22, 14, "cbf89ec134df0aea059175c0a84cea20f88e5820e6a0", "b6cbf4cb58a0768a"},
    {46, 3, "cbf89ec134df0aea059175c0a84cea20f88e5820e6a08c3268db1951a1237177", "6826cab54daef23e"},
    {100, 6, "cbf89ec134df0aea059175c0a84cea20f88e5820e6a08c3268db1951a1237177",
     "819f3cda9829b898"},
    {198, 3, "cbf89ec134df0aea059175c0a84cea20f88e5820e6a08c3268db1951a1237177",
     "3f1398fcc3079a71"},
};

void fill(CcmBatch& batch, size_t count, size_t len, size_t aad_len, uint32_t salt) {
  std::memset(&batch, 0xee, sizeof batch);
  for (size_t i = 0; i < count; ++i) {
    uint8_t nonce[kCcmNonceBytes];
    for (size_t at = 0; at < sizeof nonce; ++at) nonce[at] = static_cast<uint8_t>(0x40 + at + i);
    uint64_t start;
    uint32_t end;
    std::memcpy(&start, nonce, sizeof start);
    std::memcpy(&end, nonce + sizeof start, sizeof end);
    batch.set_nonce(i, start, end, static_cast<uint8_t>(len));
    uint64_t aad[2] = {};  // 6 bytes and 8
    for (size_t at = 0; at < aad_len; ++at) {
      aad[at < 6 ? 0 : 1] |= uint64_t{pattern(at, 7)} << 8 * (at < 6 ? at : at - 6);
    }
    batch.set_aad(i, aad[0], aad_len, aad[1]);
    Bytes text(len);
    for (size_t at = 0; at < len; ++at) text[at] = pattern(at, salt + static_cast<uint32_t>(i));
    batch.put_text(i, text.data(), len);
  }
}

Bytes text_of(const CcmBatch& batch, size_t i, size_t len) {
  Bytes text(len);
  batch.get_text(i, text.data(), len);
  return text;
}

}  // namespace

TEST_CASE("CCM: another AES's vectors; nonces come back") {
  const AesKey key(kKey);
  for (const CcmVector& vector : kCcmVectors) {
    CAPTURE(vector.len);
    auto batch = std::make_unique<CcmBatch>();
    fill(*batch, 1, vector.len, vector.aad, 1);
    ccm_seal(key, *batch, 1, vector.len);
    const Bytes text = text_of(*batch, 0, vector.len);
    CHECK(hex(text.data(), std::min<size_t>(text.size(), 32)) == vector.text);
    CHECK(hex(batch->tag(0), kCcmTagBytes) == vector.tag);
    uint8_t nonce[kCcmNonceBytes];
    batch->get_nonce(0, nonce);
    CHECK(hex(nonce, sizeof nonce) == "404142434445464748494a4b");
  }
}

TEST_CASE("CCM: a batch is as its messages one by one, and each message is judged alone") {
  const AesKey key(kKey);
  auto batch = std::make_unique<CcmBatch>();
  auto one = std::make_unique<CcmBatch>();
  for (size_t len : {1, 6, 16, 17, 22, 30, 32, 46, 64, 100, 198, 208}) {
    for (size_t count : {1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 32}) {
      fill(*batch, count, len, 3, 5);
      ccm_seal(key, *batch, count, len);
      bool same = true;
      for (size_t i = 0; i < count; ++i) {
        fill(*one, i + 1, len, 3, 5);
        std::memcpy(one->heads, one->heads + i * kAesBlock, kAesBlock);
        one->put_text(0, text_of(*one, i, len).data(), len);
        ccm_seal(key, *one, 1, len);
        same &= text_of(*one, 0, len) == text_of(*batch, i, len);
        same &= std::equal(one->tag(0), one->tag(0) + kCcmTagBytes, batch->tag(i));
      }
      CHECK(same);
      // Spoil the text, tag, nonce or additional data of some.
      const uint32_t all = count == 32 ? ~0U : (1U << count) - 1;
      uint32_t spoiled = 0;
      for (size_t i = 0; i < count; i += 3) {
        spoiled |= 1U << i;
        switch (i / 3 % 4) {
          case 0:
            batch->text[(len - 1) / kAesBlock][i * kAesBlock + (len - 1) % kAesBlock] ^= 1;
            break;
          case 1:
            batch->tag(i)[i % kCcmTagBytes] ^= 0x80;
            break;
          case 2:
            batch->heads[i * kAesBlock + 1 + i % kCcmNonceBytes] ^= 4;
            break;
          default:
            batch->aads[i * kAesBlock + 2] ^= 1;
        }
      }
      CHECK(ccm_open(key, *batch, count, len) == (all & ~spoiled));
      fill(*one, count, len, 3, 5);
      bool opened = true;
      for (size_t i = 0; i < count; ++i) {
        if ((spoiled >> i & 1) == 0) opened &= text_of(*one, i, len) == text_of(*batch, i, len);
      }
      CHECK(opened);
    }
  }
}

TEST_CASE("sums by wide vectors: of every length and alignment, in exact buffers") {
  for (size_t len = 0; len <= 700; ++len) {
    for (size_t from = 0; from < 8; ++from) {
      std::unique_ptr<uint8_t[]> exact(new uint8_t[from + len]);
      for (size_t i = 0; i < from + len; ++i) {
        exact[i] = len % 3 == 0 ? 0xff : pattern(i, static_cast<uint32_t>(len));
      }
      const uint8_t* const bytes = exact.get() + from;
      const uint16_t wanted = ones_fold(ones_add_short(0, bytes, len));
      REQUIRE(ones_fold(ones_of_many(bytes, len)) == wanted);
      REQUIRE(ones_fold(ones_of_long(bytes, len)) == wanted);
      REQUIRE(ones_fold(ones_add_bytes(0, bytes, len)) == wanted);
    }
  }
  // The longest body; many large sums are far from overflow.
  const Bytes many(65535, 0xff);
  CHECK(ones_fold(ones_of_many(many.data(), many.size())) ==
        ones_fold(ones_add_short(0, many.data(), many.size())));
}

TEST_CASE("ReplayGuard: as a set says, within its window") {
  SecretRandom random(kKey);
  const auto guard = std::make_unique<ReplayGuard>();
  struct Sender {
    uint64_t start;
    int64_t highest = -1;
    std::set<uint32_t> seen;
  };
  std::vector<Sender> senders(ReplayGuard::kSenders);
  for (Sender& sender : senders) sender.start = random.next();
  senders[0].start = 0;  // as places that aren't in use have it
  uint32_t accepted = 0;
  uint32_t old = 0;
  bool right = true;
  for (int round = 0; round < 200000; ++round) {
    Sender& sender = senders[random.below(round % 5 == 0 ? senders.size() : 3)];
    const int64_t reach = round % 11 == 0 ? 9000 : 300;
    const int64_t by = static_cast<int64_t>(random.below(static_cast<uint64_t>(reach))) -
                       (round % 3 == 0 ? reach - 1 : reach / 2);
    const auto number =
        static_cast<uint32_t>(std::clamp<int64_t>(sender.highest + by, 0, UINT32_MAX));
    uint8_t nonce[kCcmNonceBytes];
    Nonce{sender.start, __builtin_bswap32(number)}.write(nonce);
    const bool too_old = sender.highest - number >= ReplayWindow::kNumbers;
    const bool wanted = !too_old && sender.seen.insert(number).second;
    right &= guard->is_new(nonce) == wanted;
    sender.highest = std::max<int64_t>(sender.highest, number);
    accepted += wanted ? 1 : 0;
    old += too_old ? 1 : 0;
  }
  CHECK(right);
  CHECK(accepted > 1000);
  CHECK(old > 1000);
  // The last number, the first, and a jump over all there are.
  const auto other = std::make_unique<ReplayGuard>();
  const auto ask = [&](uint32_t number) {
    uint8_t nonce[kCcmNonceBytes];
    Nonce{7, __builtin_bswap32(number)}.write(nonce);
    return other->is_new(nonce);
  };
  CHECK(ask(0));
  CHECK_FALSE(ask(0));
  CHECK(ask(UINT32_MAX));
  CHECK_FALSE(ask(UINT32_MAX));
  CHECK_FALSE(ask(0));
  CHECK(ask(UINT32_MAX - 4095));
  CHECK_FALSE(ask(UINT32_MAX - 4096));
}

TEST_CASE("Nonces: none comes twice, from none of many senders") {
  std::set<Bytes> seen;
  for (int sender = 0; sender < 100; ++sender) {
    Nonces nonces;
    for (uint32_t i = 0; i < 300; i += 3) {
      NonceRun run = nonces.take(3);
      for (uint32_t n = i; n < i + 3; ++n) {
        Bytes nonce(kCcmNonceBytes);
        run.next().write(nonce.data());
        seen.insert(nonce);
        CHECK(load_be32(&nonce[8]) == n);
      }
    }
  }
  CHECK(seen.size() == 100 * 300);
}
