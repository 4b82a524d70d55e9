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
#include "host/live_table.h"

namespace e2 {
namespace {

constexpr uint32_t kMaxTemplateBytes = 1792;  // what a buffer of the usual size takes
constexpr uint32_t kBlock = 64;

struct alignas(kCacheLineBytes) Template {
  uint8_t bytes[kMaxTemplateBytes] = {};
  uint32_t len = 0;
};

// Unlike Packet::start_over, keeps the arrival time.
inline void make_room(Packet& packet, uint32_t len) {
  packet.reset(len);
  packet.set_wire_len(0);
}

// Fills a batch with templates of one block, of which `next` is the first; returns the next one.
using Copy = const Template* (*)(Batch&, const Template*, const Template*, const Template*);

[[gnu::always_inline]] inline const Template* copy_body(Batch& batch, const Template* first,
                                                        const Template* end, const Template* next) {
  for (Packet* packet : batch) {
    make_room(*packet, next->len);
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
    auto deck = deck_.read(ctx);
    if (deck->templates.empty()) {
      deck.release();
      emit(ctx, batch);
      return;
    }
    const Template* const first = deck->templates.data();
    const Template* const end = first + deck->templates.size();
    Turn& turn = turns_[ctx.wid];
    const Template* next = first + (turn.of == deck->version ? turn.next : 0);
    // All buffers of a pool have one size: what holds for the first packet holds for all.
    const uint32_t room = batch[0]->capacity() - kHeadroomBytes;
    if (deck->longest <= kBlock && kBlock <= room) {
      next = copy_(batch, first, end, next);
      turn = {deck->version, static_cast<uint32_t>(next - first)};
      deck.release();
      emit(ctx, batch);
      return;
    }
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = rewrite(*batch[i], *next, room) ? 0 : drop_gate(too_long_);
      if (++next == end) next = first;
    }
    turn = {deck->version, static_cast<uint32_t>(next - first)};
    deck.release();
    emit_by_gate(ctx, batch, gates);
  }

  Status add(const Args& args, Args&) {
    const Args::List& list = args["templates"].as_list();
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].as_string().size() > kMaxTemplateBytes) {
        return Status::invalid("'templates' item " + std::to_string(i) + " has " +
                               std::to_string(list[i].as_string().size()) + " bytes; at most " +
                               std::to_string(kMaxTemplateBytes) + " are possible");
      }
    }
    return deck_.try_change([&list](Deck& deck) {
      if (list.size() > kMaxBatch - deck.templates.size()) {
        return Status::invalid("'templates': at most " + std::to_string(kMaxBatch) +
                               " templates in all; there are " +
                               std::to_string(deck.templates.size()) + " already");
      }
      for (const Args& item : list) deck.add(item.as_string());
      return Status{};
    });
  }

  Status clear(const Args&, Args&) {
    deck_.change([](Deck& deck) {
      deck.templates.clear();
      deck.longest = 0;
      ++deck.version;
    });
    return {};
  }

 private:
  struct Deck {
    std::vector<Template> templates;
    uint32_t longest = 0;  // template, in bytes
    uint32_t version = 0;  // counts the clears

    void add(const std::string& bytes) {
      templates.emplace_back();
      std::memcpy(templates.back().bytes, bytes.data(), bytes.size());
      templates.back().len = static_cast<uint32_t>(bytes.size());
      longest = std::max(longest, templates.back().len);
    }
  };
  struct alignas(kCacheLineBytes) Turn {
    uint32_t of = 0;    // which version of the templates
    uint32_t next = 0;  // from the start again with another version
  };

  static bool rewrite(Packet& packet, const Template& from, uint32_t room) {
    if (from.len > room) return false;
    make_room(packet, from.len);
    std::memcpy(packet.data(), from.bytes, from.len);
    return true;
  }

  const Copy copy_ = pick<Copy>(copy_portable, copy_avx2, copy_avx512);
  Live<Deck> deck_;
  Turn turns_[kMaxWorkers];
  uint32_t too_long_ = 0;
};

const ModuleClass kClass = {"Rewrite",
                            "rewrite",
                            "replaces entire packet data",
                            "RewriteArg",
                            1,
                            1,
                            {{"add", "RewriteArg", "EmptyArg", true, command(&Rewrite::add)},
                             {"clear", "EmptyArg", "EmptyArg", true, command(&Rewrite::clear)}},
                            make_module<Rewrite>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
