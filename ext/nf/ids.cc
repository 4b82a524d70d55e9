// SPDX-License-Identifier: BSD-3-Clause
// IDS: finds byte signatures in packet payloads and splits packets by the result.
//
// The payload is what follows the L4 header, or IP where there is no L4 header that the parser
// knows; a packet whose headers are cut or malformed has no payload and counts as safe.
//
// Family: network functions
// Gates: in 1, out 2. 0: packets without a signature; 1: those with one or more.
// Arguments: IDSArg
// Commands:
//   get_alerts  the signatures seen so far, with the number of packets that had each of them
// Metadata: writes `safe` (1 byte): 1 for packets to gate 0, 0 for packets to gate 1.
// Drop reasons: none.
// Limits: a signature that is split over packets is not found, nor one that is encoded otherwise
// than given.
// Method: Aho-Corasick as a dense table, one step per byte however many signatures there are.
// Origin: original to this project; the algorithm is by Aho and Corasick, CACM 18(6), 1975.
#include <atomic>
#include <set>

#include "host/headers.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr size_t kMaxSignatures = 4096;
constexpr size_t kMaxSignatureBytes = 16384;
constexpr uint16_t kFound = 0x8000;  // in a transition: the next state ends a signature
constexpr uint16_t kStateMask = 0x7fff;
constexpr uint16_t kNone = 0xffff;
static_assert(kMaxSignatureBytes < kStateMask, "states fit beside the flag");

const char* const kDefaultSignatures[] = {
    "/etc/passwd",   // file disclosure
    "../../",        // directory traversal
    "cmd.exe",       // command injection, Windows
    "<script>",      // cross-site scripting
    "' OR '1'='1",   // SQL injection, condition
    "UNION SELECT",  // SQL injection, extraction
    "${jndi:",       // Log4Shell, CVE-2021-44228
    "() { :;};",     // Shellshock, CVE-2014-6271
};

class Ids final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    safe_ = add_attr("safe", 1, Access::kWrite);
    std::vector<std::string> list;
    for (const Args& item : args["signatures"].as_list()) list.push_back(item.as_string());
    if (list.empty()) list.assign(std::begin(kDefaultSignatures), std::end(kDefaultSignatures));
    std::set<std::string> known;
    size_t bytes = 0;
    for (size_t i = 0; i < list.size(); i++) {
      if (list[i].empty()) {
        return Status::invalid("IDS.signatures[" + std::to_string(i) +
                               "] is empty; it must be a string of 1 byte or more");
      }
      if (!known.insert(list[i]).second) continue;
      signatures_.push_back(list[i]);
      bytes += list[i].size();
    }
    if (signatures_.size() > kMaxSignatures || bytes > kMaxSignatureBytes) {
      return Status::invalid("IDS.signatures: " + std::to_string(signatures_.size()) +
                             " signatures of " + std::to_string(bytes) +
                             " bytes together; at most 4096 of 16384 bytes fit");
    }
    build();
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Headers headers[kMaxBatch];
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; i++) {
      headers[i] = parse_headers(batch[i]->data(), batch[i]->len());
    }
    uint64_t* stamps = stamps_.get() + ctx.wid * stride_;
    for (uint32_t i = 0; i < batch.size; i++) {
      const Headers& h = headers[i];
      gates[i] = scan(batch[i]->data() + h.payload_off, h.payload_len, stamps) ? 1 : 0;
    }
    int offset = attr_offset(safe_);
    if (offset >= 0) {
      for (uint32_t i = 0; i < batch.size; i++) *batch[i]->metadata(offset) = gates[i] == 0;
    }
    emit_by_gate(ctx, batch, gates);
  }

  Status get_alerts(const Args&, Args& response) {
    Args::List alerts;
    for (size_t i = 0; i < signatures_.size(); i++) {
      uint64_t packets = counts_[i].load(std::memory_order_relaxed);
      if (packets == 0) continue;
      alerts.emplace_back(Args::Map{{"signature", signatures_[i]}, {"packets", packets}});
    }
    response.set("alerts", std::move(alerts));
    return {};
  }

  std::string description() const override {
    return std::to_string(signatures_.size()) + " signatures";
  }

 private:
  bool scan(const uint8_t* bytes, uint32_t len, uint64_t* stamps) {
    uint32_t state = 0;
    bool found = false;
    for (uint32_t i = 0; i < len; i++) {
      uint16_t next = table_[state * 256 + bytes[i]];
      state = next & kStateMask;
      if ((next & kFound) == 0) continue;
      if (!found) stamps[0]++;
      found = true;
      count(state, stamps);
    }
    return found;
  }

  // Counts every signature that ends in this state, once per packet: the worker's packet number is
  // in stamps[0], and the last packet that had signature s is in stamps[1 + s]. Where a signature
  // was counted already, so were the shorter ones at its end.
  void count(uint32_t state, uint64_t* stamps) {
    for (uint16_t s = ending_[state]; s != kNone && stamps[1 + s] != stamps[0]; s = shorter_[s]) {
      stamps[1 + s] = stamps[0];
      counts_[s].fetch_add(1, std::memory_order_relaxed);
    }
  }

  uint16_t add_state() {
    table_.resize(table_.size() + 256, kNone);
    ending_.push_back(kNone);
    return static_cast<uint16_t>(ending_.size() - 1);
  }

  void build() {
    add_state();
    for (size_t s = 0; s < signatures_.size(); s++) {
      size_t state = 0;
      for (char c : signatures_[s]) {
        size_t cell = state * 256 + static_cast<uint8_t>(c);
        if (table_[cell] == kNone) {
          uint16_t added = add_state();
          table_[cell] = added;
        }
        state = table_[cell];
      }
      ending_[state] = static_cast<uint16_t>(s);
    }
    shorter_.assign(signatures_.size(), kNone);
    counts_ = std::make_unique<std::atomic<uint64_t>[]>(signatures_.size());
    constexpr size_t kLine = kCacheLineBytes / sizeof(uint64_t);
    stride_ = (1 + signatures_.size() + kLine - 1) / kLine * kLine;
    stamps_ = std::make_unique<uint64_t[]>(stride_ * kMaxWorkers);
    link();
  }

  // Fills in, breadth first, where to go when a signature breaks off: to the longest suffix that
  // starts another one. `fail` of a state is shorter than it, so its row is complete already.
  void link() {
    std::vector<uint16_t> fail(ending_.size(), 0);
    std::vector<uint16_t> order{0};
    for (size_t at = 0; at < order.size(); at++) {
      size_t state = order[at];
      if (state != 0) {
        uint16_t inherited = ending_[fail[state]];
        if (ending_[state] == kNone) {
          ending_[state] = inherited;
        } else {
          shorter_[ending_[state]] = inherited;
        }
      }
      for (size_t byte = 0; byte < 256; byte++) {
        uint16_t& next = table_[state * 256 + byte];
        uint16_t other = state == 0 ? 0 : table_[fail[state] * size_t{256} + byte];
        if (next == kNone) {
          next = other;
        } else {
          fail[next] = other;
          order.push_back(next);
        }
      }
    }
    for (uint16_t& next : table_) {
      if (ending_[next] != kNone) next |= kFound;
    }
  }

  std::vector<std::string> signatures_;
  std::vector<uint16_t> table_;    // 256 transitions per state
  std::vector<uint16_t> ending_;   // per state: the longest signature that ends there
  std::vector<uint16_t> shorter_;  // per signature: the next longest that is its suffix
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;
  std::unique_ptr<uint64_t[]> stamps_;
  size_t stride_ = 0;
  size_t safe_ = 0;
};

const ModuleClass kClass = {"IDS",
                            "ids",
                            "sends packets whose payload has a known signature to gate 1",
                            "IDSArg",
                            1,
                            2,
                            {{"get_alerts", "IDSCommandGetAlertsArg", "IDSCommandGetAlertsResponse",
                              true, command(&Ids::get_alerts)}},
                            make_module<Ids>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
