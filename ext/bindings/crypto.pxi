# SPDX-License-Identifier: BSD-3-Clause
# What crypto.pyx uses of the core.

cdef extern from "host/status.h" namespace "e2" nogil:
    cdef cppclass Status:
        int code
        string message
        cbool ok()


cdef extern from "host/isa.h" namespace "e2" nogil:
    ctypedef enum Isa "e2::Isa":
        pass
    Isa c_isa "e2::isa"()
    Isa best_isa()
    Status check_isa()
    const char* isa_name(Isa)


cdef extern from "crypto/aes.h" namespace "e2" nogil:
    cdef cppclass CAesKey "e2::AesKey":
        CAesKey(const uint8_t*, size_t) except +
    cdef cppclass CGcmKey "e2::GcmKey":
        CGcmKey(const uint8_t*, size_t) except +
    void aes_blocks(const CAesKey&, const uint8_t*, uint8_t*, size_t)
    void aes_ctr(const CAesKey&, const uint8_t*, uint32_t, const uint8_t*, uint8_t*, size_t)
    void gcm_seal(const CGcmKey&, const uint8_t*, const uint8_t*, size_t, const uint8_t*,
                  uint8_t*, size_t, uint8_t*)
    cbool gcm_open(const CGcmKey&, const uint8_t*, const uint8_t*, size_t, const uint8_t*,
                   uint8_t*, size_t, const uint8_t*)


cdef extern from "crypto/encrypt_prefixes.h" namespace "e2" nogil:
    cdef cppclass SecretRandom:
        SecretRandom(const uint8_t*) except +
    cdef cppclass ValueRange:
        pass
    cdef cppclass EncryptedPrefixes:
        Status status
        uint32_t sets
        vector[uint32_t] rule(size_t) except +
    EncryptedPrefixes encrypt_prefixes(const vector[ValueRange]&, uint32_t, uint32_t,
                                       SecretRandom&) except +


cdef extern from "crypto/prefix_file.h" namespace "e2" nogil:
    Status c_write_prefix_maps "e2::write_prefix_maps"(
        const string&, const vector[const EncryptedPrefixes*]&) except +


cdef extern from "crypto/prefix_match.h" namespace "e2" nogil:
    cdef cppclass CPrefixMap "e2::PrefixMap":
        CPrefixMap(const EncryptedPrefixes&, const uint8_t*) except +
        uint32_t domain_bits()
        uint32_t prefix_bits()
        size_t bytes()
        size_t first_outside(const uint64_t*, size_t)
        size_t first_outside_wide(const uint8_t*, size_t)
        void encrypt(const uint64_t*, const uint8_t*, uint64_t*, size_t)
        void encrypt_wide(const uint8_t*, const uint8_t*, uint8_t*, size_t)
        void encrypt_ipv4(const uint32_t*, const uint8_t*, uint8_t*, size_t)


cdef extern from *:
    """
    static e2::Wide wide_of(uint64_t high, uint64_t low) {
      return static_cast<e2::Wide>(high) << 64 | low;
    }
    static e2::ValueRange value_range(uint64_t first_high, uint64_t first_low, uint64_t last_high,
                                      uint64_t last_low) {
      return {wide_of(first_high, first_low), wide_of(last_high, last_low)};
    }
    """
    ValueRange value_range(uint64_t, uint64_t, uint64_t, uint64_t) nogil
