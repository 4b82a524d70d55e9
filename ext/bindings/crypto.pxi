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
    cdef cppclass Wide:
        pass
    cdef cppclass ValueRange:
        pass
    cdef cppclass SetPrefixes "std::vector<std::pair<e2::Wide, uint32_t>>":
        size_t size()
    cdef cppclass RangeNames:
        pass
    cdef cppclass EncryptedPrefixes:
        Status status
        uint32_t sets
        SetPrefixes set_prefixes
        vector[uint32_t] rule(size_t) except +
    EncryptedPrefixes encrypt_prefixes(const vector[ValueRange]&, uint32_t, uint32_t,
                                       SecretRandom&) except +
    EncryptedPrefixes encrypt_named_prefixes(const vector[ValueRange]&, const RangeNames&, uint32_t,
                                             uint32_t, SecretRandom&) except +


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


cdef extern from "crypto/site_keys.h" namespace "e2" nogil:
    cdef cppclass CSiteKeys "e2::SiteKeys":
        pass
    Status read_site_keys(const string&, shared_ptr[const CSiteKeys]&) except +


cdef extern from "crypto/address_pool.h" namespace "e2" nogil:
    cdef cppclass PoolEntry "e2::AddressPool::Entry":
        pass
    Status c_encrypt_pool "e2::encrypt_pool"(const CSiteKeys&, const EncryptedPrefixes&,
                                             const EncryptedPrefixes&,
                                             vector[PoolEntry]&) except +


cdef extern from *:
    """
    #include <algorithm>
    static e2::Wide wide_of(uint64_t high, uint64_t low) {
      return static_cast<e2::Wide>(high) << 64 | low;
    }
    static e2::ValueRange value_range(uint64_t first_high, uint64_t first_low, uint64_t last_high,
                                      uint64_t last_low) {
      return {wide_of(first_high, first_low), wide_of(last_high, last_low)};
    }
    static void add_id(e2::RangeNames& names, uint64_t high, uint64_t low) {
      names.ids.push_back(wide_of(high, low));
    }
    static void add_kept(e2::RangeNames& names, uint64_t high, uint64_t low, uint32_t prefix) {
      names.kept.emplace_back(wide_of(high, low), prefix);
    }
    using SetPrefixList = std::vector<std::pair<e2::Wide, uint32_t>>;
    static uint64_t id_high(const SetPrefixList& sets, size_t i) {
      return static_cast<uint64_t>(sets[i].first >> 64);
    }
    static uint64_t id_low(const SetPrefixList& sets, size_t i) {
      return static_cast<uint64_t>(sets[i].first);
    }
    static void add_entry(std::vector<e2::AddressPool::Entry>& entries, const uint8_t* clear,
                          bool nat) {
      e2::AddressPool::Entry entry = {{}, {}, nat};
      std::copy_n(clear, entry.clear.size(), entry.clear.begin());
      entries.push_back(entry);
    }
    static std::string encrypted_at(const std::vector<e2::AddressPool::Entry>& entries, size_t i) {
      return {entries[i].encrypted.begin(), entries[i].encrypted.end()};
    }
    static std::string name_of(const e2::SiteKeys& keys, const std::string& text) {
      const auto name = keys.name_of(text);
      return {name.begin(), name.end()};
    }
    static uint32_t prefix_at(const SetPrefixList& sets, size_t i) { return sets[i].second; }
    """
    void add_id(RangeNames&, uint64_t, uint64_t) except + nogil
    void add_kept(RangeNames&, uint64_t, uint64_t, uint32_t) except + nogil
    uint64_t id_high(const SetPrefixes&, size_t) nogil
    uint64_t id_low(const SetPrefixes&, size_t) nogil
    uint32_t prefix_at(const SetPrefixes&, size_t) nogil
    ValueRange value_range(uint64_t, uint64_t, uint64_t, uint64_t) nogil
    void add_entry(vector[PoolEntry]&, const uint8_t*, cbool) except + nogil
    string encrypted_at(const vector[PoolEntry]&, size_t) except + nogil
    string name_of(const CSiteKeys&, const string&) except + nogil
