// SPDX-License-Identifier: BSD-3-Clause
// Rewrite: replaces whole packets with templates, in turn.
//
// Packets become copies of the templates in round robin, one rotation per worker, and keep their
// arrival time and metadata; the length on the wire is forgotten. Without a template packets pass
// unchanged.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: RewriteArg
// Commands:
//   add    appends templates, all or none
//   clear  removes all templates
// Metadata: none.
// Drop reasons:
//   "template too long"  the packet's buffer cannot hold the template
// Limits: at most 32 templates until `clear`.
// Method: short templates lie in blocks of 64 bytes that are copied whole, whatever their length;
// the bytes beyond the packet's end are tailroom.
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>
#include <vector>

#include "host/isa.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kMaxTemplateBytes = 1536;
constexpr uint32_t kBlock = 64;

struct alignas(kCacheLineBytes) Template {
  uint8_t bytes[kMaxTemplateBytes] = {};
  uint32_t len = 0;
};

inline void start_over(Packet& packet, uint32_t len) {
  packet.reset(len);
  packet.set_wire_len(0);
}

// Fills a batch with templates of one block, of which `next` is the first; returns the next one.
using Copy = const Template* (*)(Batch&, const Template*, const Template*, const Template*);

[[gnu::always_inline]] inline const Template* copy_body(Batch& batch, const Template* first,
                                                        const Template* end, const Template* next) {
  for (Packet* packet : batch) {
    start_over(*packet, next->len);
    std::memcpy(packet->data(), next->bytes, kBlock);
    if (++next == end) next = first;
  }
  return next;
}
const Template* copy_portable(Batch& batch, const Template* first, const Template* end,
                              const Template* next) {
  return copy_body(batch, first, end, next);
}
#if defined(__x86_64__)
E2_TARGET_AVX2 const Template* copy_avx2(Batch& batch, const Template* first, const Template* end,
                                         const Template* next) {
  return copy_body(batch, first, end, next);
}
E2_TARGET_AVX512 const Template* copy_avx512(Batch& batch, const Template* first,
                                             const Template* end, const Template* next) {
  return copy_body(batch, first, end, next);
}
#else
constexpr Copy copy_avx2 = copy_portable;
constexpr Copy copy_avx512 = copy_portable;
#endif

class Rewrite final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    too_long_ = add_drop_reason("template too long");
    Args none;
    return add(args, none);
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    if (templates_.empty()) {
      emit(ctx, batch);
      return;
    }
    const Template* const first = templates_.data();
    const Template* const end = first + templates_.size();
    const Template* next = first + turns_[ctx.wid].next;
    // All buffers of a pool have one size: what holds for the first packet holds for all.
    const uint32_t room = batch[0]->capacity() - kHeadroomBytes;
    if (longest_ <= kBlock && kBlock <= room) {
      next = copy_(batch, first, end, next);
      turns_[ctx.wid].next = static_cast<uint32_t>(next - first);
      emit(ctx, batch);
      return;
    }
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = rewrite(*batch[i], *next, room) ? 0 : drop_gate(too_long_);
      if (++next == end) next = first;
    }
    turns_[ctx.wid].next = static_cast<uint32_t>(next - first);
    emit_by_gate(ctx, batch, gates);
  }

  Status add(const Args& args, Args&) {
    const Args::List& list = args["templates"].as_list();
    if (list.size() > kMaxBatch - templates_.size()) {
      return Status::invalid("'templates': at most " + std::to_string(kMaxBatch) +
                             " templates in all; there are " + std::to_string(templates_.size()) +
                             " already");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].as_string().size() > kMaxTemplateBytes) {
        return Status::invalid("'templates' item " + std::to_string(i) + " has " +
                               std::to_string(list[i].as_string().size()) + " bytes; at most " +
                               std::to_string(kMaxTemplateBytes) + " are possible");
      }
    }
    for (const Args& item : list) {
      const std::string& bytes = item.as_string();
      templates_.emplace_back();
      std::memcpy(templates_.back().bytes, bytes.data(), bytes.size());
      templates_.back().len = static_cast<uint32_t>(bytes.size());
      longest_ = std::max(longest_, templates_.back().len);
    }
    return {};
  }

  Status clear(const Args&, Args&) {
    templates_.clear();
    longest_ = 0;
    for (Turn& turn : turns_) turn.next = 0;
    return {};
  }

 private:
  struct alignas(kCacheLineBytes) Turn {
    uint32_t next = 0;
  };

  static bool rewrite(Packet& packet, const Template& from, uint32_t room) {
    if (from.len > room) return false;
    start_over(packet, from.len);
    std::memcpy(packet.data(), from.bytes, from.len);
    return true;
  }

  const Copy copy_ = pick<Copy>(copy_portable, copy_avx2, copy_avx512);
  std::vector<Template> templates_;
  uint32_t longest_ = 0;  // template, in bytes
  Turn turns_[kMaxWorkers];
  uint32_t too_long_ = 0;
};

const ModuleClass kClass = {"Rewrite",
                            "rewrite",
                            "replaces entire packet data",
                            "RewriteArg",
                            1,
                            1,
                            {{"add", "RewriteArg", "EmptyArg", false, command(&Rewrite::add)},
                             {"clear", "EmptyArg", "EmptyArg", false, command(&Rewrite::clear)}},
                            make_module<Rewrite>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
