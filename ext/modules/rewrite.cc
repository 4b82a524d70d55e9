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
// Method: templates lie in blocks of 64 bytes, one behind the other. Short ones are copied as whole
// blocks, whatever their length; the bytes beyond the packet's end are tailroom.
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>
#include <vector>

#include "host/isa.h"
#include "host/live_table.h"

namespace e2 {
namespace {

constexpr uint32_t kMaxTemplateBytes = 1792;  // what a buffer of the usual size takes

struct alignas(kCacheLineBytes) Block {
  uint8_t bytes[kCacheLineBytes] = {};
};
constexpr uint32_t kBlock = sizeof(Block);

struct Template {
  uint32_t first;  // block
  uint32_t len;
};

// Unlike Packet::start_over, keeps the arrival time.
inline void make_room(Packet& packet, uint32_t len) {
  packet.reset(len);
  packet.set_wire_len(0);
}

// All that there are. copy_body() takes template i from block i: each must have one.
struct Blocks {
  const Block* blocks;
  const Template* templates;
  uint32_t count;
};
// Fills a batch with them from number `next` on; returns the one behind the last.
using Copy = uint32_t (*)(Batch&, const Blocks&, uint32_t next);

[[gnu::always_inline]] inline uint32_t copy_body(Batch& batch, const Blocks& from, uint32_t next) {
  for (Packet* packet : batch) {
    make_room(*packet, from.templates[next].len);
    std::memcpy(packet->data(), from.blocks[next].bytes, kBlock);
    if (++next == from.count) next = 0;
  }
  return next;
}
uint32_t copy_portable(Batch& batch, const Blocks& from, uint32_t next) {
  return copy_body(batch, from, next);
}
#if defined(__x86_64__)
E2_TARGET_AVX2 uint32_t copy_avx2(Batch& batch, const Blocks& from, uint32_t next) {
  return copy_body(batch, from, next);
}
E2_TARGET_AVX512 uint32_t copy_avx512(Batch& batch, const Blocks& from, uint32_t next) {
  return copy_body(batch, from, next);
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
    const Blocks all = {deck->blocks.data(), deck->templates.data(),
                        static_cast<uint32_t>(deck->templates.size())};
    Turn& turn = turns_[ctx.wid];
    uint32_t next = turn.of == deck->version ? turn.next : 0;
    // All buffers of a pool have one size: what holds for the first packet holds for all.
    const uint32_t room = batch[0]->capacity() - kHeadroomBytes;
    if (deck->longest <= kBlock && kBlock <= room) {
      turn = {deck->version, copy_(batch, all, next)};
      deck.release();
      emit(ctx, batch);
      return;
    }
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = rewrite(*batch[i], all, next, room) ? 0 : drop_gate(too_long_);
      if (++next == all.count) next = 0;
    }
    turn = {deck->version, next};
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
      deck.blocks.clear();
      deck.longest = 0;
      ++deck.version;
    });
    return {};
  }

 private:
  struct Deck {
    std::vector<Block> blocks;
    std::vector<Template> templates;
    uint32_t longest = 0;  // template, in bytes
    uint32_t version = 0;  // counts the clears

    void add(const std::string& bytes) {
      const size_t first = blocks.size();
      blocks.resize(first + std::max<size_t>(1, (bytes.size() + kBlock - 1) / kBlock));
      std::memcpy(blocks[first].bytes, bytes.data(), bytes.size());
      templates.push_back({static_cast<uint32_t>(first), static_cast<uint32_t>(bytes.size())});
      longest = std::max(longest, templates.back().len);
    }
  };
  struct alignas(kCacheLineBytes) Turn {
    uint32_t of = 0;    // which version of the templates
    uint32_t next = 0;  // from the start again with another version
  };

  static bool rewrite(Packet& packet, const Blocks& from, uint32_t number, uint32_t room) {
    const Template& one = from.templates[number];
    if (one.len > room) return false;
    make_room(packet, one.len);
    std::memcpy(packet.data(), from.blocks[one.first].bytes, one.len);
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
