// SPDX-License-Identifier: BSD-3-Clause
// WebCache: measures what a web cache in this place could serve; it stores and serves no content.
//
// It recognises HTTP/1 GET requests at the start of a TCP payload and remembers a hash of Host and
// path for each. A request is a hit when its key is remembered from before. Packets pass unchanged.
//
// Family: network functions
// Gates: in 1, out 1.
// Arguments: WebCacheArg
// Commands:
//   get_stats  requests, hits and keys so far
// Metadata: none.
// Drop reasons: none.
// Limits: a request whose Host header is not in the packet of its request line is counted but has
// no key; one that ends its headers without Host has the key of its path alone. Where 4 keys share
// a set, a further key takes the place of one of them. Keys are told apart by 64 bits of hash.
// Origin: original to this project.
#include <atomic>

#include "host/headers.h"
#include "host/module.h"
#include "modules/http_text.h"

namespace e2 {
namespace {

constexpr uint64_t kDefaultEntries = 65536;
constexpr uint64_t kMaxEntries = 1u << 24;
constexpr uint32_t kWays = 4;
constexpr uint64_t kFnvStart = 0xcbf29ce484222325ULL;
constexpr uint64_t kFnvPrime = 0x100000001b3ULL;

uint64_t add_byte(uint64_t hash, uint8_t byte) { return (hash ^ byte) * kFnvPrime; }

uint64_t finish(uint64_t hash) {
  hash ^= hash >> 32;
  hash *= 0xd6e8feb86659fd93ULL;
  hash ^= hash >> 32;
  return hash == 0 ? 1 : hash;
}

// Whether the payload starts with a GET request line, and the request's key (0: unknown).
bool read_request(const uint8_t* bytes, uint32_t len, uint64_t& key) {
  constexpr uint32_t kMethodBytes = 4;
  key = 0;
  if (len < kMethodBytes || std::memcmp(bytes, "GET ", kMethodBytes) != 0) return false;
  const char* start = reinterpret_cast<const char*>(bytes);
  Text rest = {start + kMethodBytes, start + len};
  Text line;
  if (!next_line(rest, line)) return false;
  const void* space = std::memchr(line.start, ' ', static_cast<size_t>(line.end - line.start));
  if (space == nullptr || space == line.start) return false;
  Text path = {line.start, static_cast<const char*>(space)};
  Text host = {start, start};
  bool complete = false;
  while (!complete && next_line(rest, line)) {
    complete = line.start == line.end || host_value(line, host);
  }
  if (!complete) return true;
  uint64_t hash = kFnvStart;
  for (const char* c = host.start; c < host.end; c++) {
    hash = add_byte(hash, lower(static_cast<uint8_t>(*c)));
  }
  hash = add_byte(hash, 0);
  for (const char* c = path.start; c < path.end; c++) {
    hash = add_byte(hash, static_cast<uint8_t>(*c));
  }
  key = finish(hash);
  return true;
}

class WebCache final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    uint64_t entries = args["entries"].as_uint();
    if (entries == 0) entries = kDefaultEntries;
    if (entries > kMaxEntries) {
      return Status::invalid("WebCache.entries is " + std::to_string(entries) +
                             "; must be between 1 and " + std::to_string(kMaxEntries));
    }
    size_t slots = kWays;
    while (slots < entries) slots *= 2;
    sets_ = slots / kWays;
    slots_ = std::make_unique<std::atomic<uint64_t>[]>(slots);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    for (uint32_t i = 0; i < batch.size; i++) {
      const uint8_t* data = batch[i]->data();
      Headers h = parse_headers(data, batch[i]->len());
      if (h.ip_proto != kProtoTcp || h.l4_off == 0 || h.payload_len == 0) continue;
      uint64_t key = 0;
      if (!read_request(data + h.payload_off, h.payload_len, key)) continue;
      requests_.fetch_add(1, std::memory_order_relaxed);
      if (key != 0 && remember(key)) hits_.fetch_add(1, std::memory_order_relaxed);
    }
    emit(ctx, batch);
  }

  Status get_stats(const Args&, Args& response) {
    response.set("requests", requests_.load(std::memory_order_relaxed));
    response.set("hits", hits_.load(std::memory_order_relaxed));
    response.set("keys", keys_.load(std::memory_order_relaxed));
    return {};
  }

  std::string description() const override {
    return std::to_string(keys_.load(std::memory_order_relaxed)) + " keys";
  }

 private:
  // Whether the key was there; it is afterwards. Workers may call this at the same time.
  bool remember(uint64_t key) {
    std::atomic<uint64_t>* set = &slots_[(key & (sets_ - 1)) * kWays];
    for (uint32_t way = 0; way < kWays; way++) {
      uint64_t there = set[way].load(std::memory_order_relaxed);
      if (there == 0 && set[way].compare_exchange_strong(there, key, std::memory_order_relaxed)) {
        keys_.fetch_add(1, std::memory_order_relaxed);
        return false;
      }
      if (there == key) return true;
    }
    set[key >> 62].store(key, std::memory_order_relaxed);
    return false;
  }

  std::unique_ptr<std::atomic<uint64_t>[]> slots_;
  uint64_t sets_ = 0;
  alignas(kCacheLineBytes) std::atomic<uint64_t> requests_{0};
  std::atomic<uint64_t> hits_{0};
  std::atomic<uint64_t> keys_{0};
};

const ModuleClass kClass = {
    "WebCache",
    "web_cache",
    "counts HTTP GET requests and how many of them a cache could have served",
    "WebCacheArg",
    1,
    1,
    {{"get_stats", "WebCacheCommandGetStatsArg", "WebCacheCommandGetStatsResponse", true,
      command(&WebCache::get_stats)}},
    make_module<WebCache>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
