// SPDX-License-Identifier: BSD-3-Clause
// A site key and prefix maps in files that are there as long as this is, and the arguments of
// Embark's modules that name them.
#pragma once

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "crypto/encrypt_prefixes.h"
#include "crypto/prefix_file.h"
#include "host/args.h"

class EmbarkFiles {
 public:
  EmbarkFiles() {
    std::string path = "/tmp/e2-embark-XXXXXX";
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    folder_ = path;
    write_private(key(), std::string(64, '5'));
    write_maps();
  }
  ~EmbarkFiles() {
    ::unlink(key().c_str());
    ::unlink(maps().c_str());
    ::rmdir(folder_.c_str());
  }
  EmbarkFiles(const EmbarkFiles&) = delete;
  EmbarkFiles& operator=(const EmbarkFiles&) = delete;

  std::string key() const { return folder_ + "/key"; }
  std::string maps() const { return folder_ + "/maps"; }

  static void write_private(const std::string& path, const std::string& bytes) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    REQUIRE(file != nullptr);
    ::fchmod(::fileno(file), S_IRUSR | S_IWUSR);
    CHECK(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size());
    std::fclose(file);
  }

  // Of a class, by name; `sealed`: with PayloadSeal and PayloadOpen around.
  e2::Args args(const std::string& module_class, bool sealed = false) const {
    e2::Args site_key{e2::Args::Map{}};
    site_key.set("file", key());
    e2::Args::List ring;
    ring.push_back(site_key);
    e2::Args all{e2::Args::Map{}};
    const bool one = module_class == "PayloadSeal" || module_class == "PrefixMatchEncrypt";
    if (one) {
      all.set("key", site_key);
    } else {
      all.set("keys", std::move(ring));
    }
    if (module_class == "PrefixMatchEncrypt" || module_class == "PrefixMatchDecrypt") {
      all.set("src_mac", "02:00:00:00:00:01");
      all.set("dst_mac", "02:00:00:00:00:02");
      e2::Args pool{e2::Args::Map{}};
      pool.set("prefix", "10.0.0.0/30");
      pool.set("nat", true);
      e2::Args::List pools;
      pools.push_back(pool);
      all.set("pool", std::move(pools));
    }
    if (module_class == "PrefixMatchEncrypt") {
      all.set("maps_file", maps());
      e2::Args returns{e2::Args::Map{}};
      returns.set("name", "returns");
      returns.set("max_flows", uint64_t{64});
      all.set("returns", std::move(returns));
    }
    if (module_class == "PrefixMatchDecrypt") all.set("return_table", "returns");
    if (module_class == "PrefixMatchEncrypt" || module_class == "PrefixMatchDecrypt") {
      all.set("sealed_payload", sealed);
    }
    return all;
  }

  // What the file has.
  static std::string map_bytes() {
    e2::SecretRandom random(nullptr);
    const e2::EncryptedPrefixes address = e2::encrypt_prefixes({{5, 9}, {7, 1000}}, 128, 0, random);
    const e2::EncryptedPrefixes port = e2::encrypt_prefixes({{80, 80}, {0, 1023}}, 16, 0, random);
    std::string bytes;
    REQUIRE(e2::encode_prefix_maps({&address, &address, &port, &port}, bytes).ok());
    return bytes;
  }

 private:
  void write_maps() const { write_private(maps(), map_bytes()); }

  std::string folder_;
};
