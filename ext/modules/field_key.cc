// SPDX-License-Identifier: BSD-3-Clause
#include "modules/field_key.h"

#include <algorithm>
#include <cstring>
#include <variant>

#include "modules/field_value.h"

namespace e2 {
namespace {

uint64_t size_mask(uint32_t size) { return ~0ULL >> (64 - 8 * size); }

// Reads a FieldData as the word that a load of the field would give on this little-endian host.
Status read_data(const Args& data, uint32_t size, bool big, const std::string& where,
                 uint64_t& word) {
  word = 0;
  if (data.has("value_bin")) {
    const std::string& bytes = data["value_bin"].as_string();
    if (bytes.size() != size) {
      return Status::invalid(where + ": value_bin has " + std::to_string(bytes.size()) +
                             " bytes; must have " + std::to_string(size));
    }
    std::memcpy(&word, bytes.data(), size);
    return {};
  }
  const Args& number = data["value_int"];
  const uint64_t value = number.as_uint();
  if (value > size_mask(size) || std::holds_alternative<std::string>(number.value())) {
    return Status::invalid(where + ": value_int does not fit; must be a number from 0 to " +
                           std::to_string(size_mask(size)) + " (" + std::to_string(size) +
                           " bytes)");
  }
  word = big ? __builtin_bswap64(value) >> (64 - 8 * size) : value;
  return {};
}

bool is_big(IntOrder order, const KeyField& field) {
  return order == IntOrder::kBig || (order == IntOrder::kByPlace && !field.is_attr);
}

// Up to 8 bytes at `offset`; those at or beyond `len` are 0.
inline uint64_t load_bytes(const uint8_t* data, uint32_t len, uint32_t offset) {
  uint64_t word = 0;
  if (offset + 8 <= len) {
    std::memcpy(&word, data + offset, 8);
  } else if (offset < len) {
    std::memcpy(&word, data + offset, len - offset);
  }
  return word;
}

Args bin(const uint8_t* bytes, uint32_t size) {
  Args data;
  data.set("value_bin", std::string(reinterpret_cast<const char*>(bytes), size));
  return data;
}

}  // namespace

Status KeyLayout::init(const Args::List& fields, const Args::List& masks, const std::string& where,
                       const Declare& declare) {
  fields_.clear();
  bytes_ = 0;
  needed_len_ = 0;
  if (fields.size() > kMaxKeyFields) {
    return Status::invalid(where + ": has " + std::to_string(fields.size()) +
                           " fields; must have at most " + std::to_string(kMaxKeyFields));
  }
  if (!masks.empty() && masks.size() != fields.size()) {
    return Status::invalid(where + ": has " + std::to_string(masks.size()) + " masks for " +
                           std::to_string(fields.size()) +
                           " fields; must have one per field, or none to match all bits");
  }
  for (size_t i = 0; i < fields.size(); ++i) {
    const Args& arg = fields[i];
    const std::string place = where + "[" + std::to_string(i) + "]";
    KeyField field;
    const uint64_t size = arg["num_bytes"].as_uint();
    if (size < 1 || size > kMaxFieldBytes) {
      return Status::invalid(place + ": num_bytes is " + std::to_string(size) + "; must be 1 to " +
                             std::to_string(kMaxFieldBytes));
    }
    field.size = static_cast<uint32_t>(size);
    field.pos = bytes_ % 8 + field.size <= 8 ? bytes_ : (bytes_ + 7) / 8 * 8;
    field.is_attr = arg.has("attr_name");
    if (field.is_attr) {
      field.attr_name = arg["attr_name"].as_string();
      if (!declare) return Status::invalid(place + ": attr_name cannot be used here; use offset");
      if (field.attr_name.empty()) return Status::invalid(place + ": attr_name is empty");
    } else if (arg.has("offset")) {
      const uint64_t offset = arg["offset"].as_uint();
      if (offset > kMaxFieldOffset) {
        return Status::invalid(place + ": offset must be 0 to " + std::to_string(kMaxFieldOffset));
      }
      field.offset = static_cast<uint32_t>(offset);
      needed_len_ = std::max(needed_len_, field.offset + field.size);
    } else {
      return Status::invalid(place + ": must specify 'offset' or 'attr_name'");
    }
    if (!masks.empty()) {
      Status status = read_data(masks[i], field.size, !field.is_attr, place + ": mask", field.mask);
      if (!status.ok()) return status;
    }
    if (field.mask == 0) field.mask = size_mask(field.size);
    if (field.is_attr) field.attr_id = declare(field.attr_name, field.size);
    bytes_ = field.pos + field.size;
    fields_.push_back(std::move(field));
  }
  return {};
}

void KeyLayout::load(const Module& module, const Batch& batch, KeyBatch& keys) const {
  const uint32_t count = batch.size;
  const uint8_t* data[kMaxBatch];
  uint32_t shortest = UINT32_MAX;
  for (uint32_t i = 0; i < count; ++i) {
    data[i] = batch[i]->data();
    shortest = std::min(shortest, batch[i]->len());
  }
  for (const KeyField& field : fields_) {
    uint64_t* const column = keys.words[field.pos / 8];
    const uint32_t shift = field.pos % 8 * 8;
    const uint64_t mask = field.mask;
    const uint32_t offset = field.offset;
    // The first field of its word sets the column, the others add to it.
    if (shift == 0) keys.pad(count, field.pos / 8);
    const auto put = [column, shift](uint32_t i, uint64_t word) {
      column[i] = shift == 0 ? word : column[i] | word << shift;
    };
    if (field.is_attr) {
      const int place = module.attr_offset(field.attr_id);
      // Just the attribute's bytes: a wider load would wait for the store that wrote them.
      with_size(place < 0 ? 0 : field.size, [&](auto size) {
        for (uint32_t i = 0; i < count; ++i) {
          uint64_t word = 0;
          copy_word(reinterpret_cast<uint8_t*>(&word), batch[i]->metadata(0) + place, size);
          put(i, word & mask);
        }
      });
    } else if (offset + 8 <= shortest) {
      for (uint32_t i = 0; i < count; ++i) {
        uint64_t word;
        std::memcpy(&word, data[i] + offset, sizeof word);
        put(i, word & mask);
      }
    } else {
      for (uint32_t i = 0; i < count; ++i) {
        put(i, load_bytes(data[i], batch[i]->len(), offset) & mask);
      }
    }
  }
}

bool KeyLayout::store(const Module& module, Packet* packet, const uint8_t* key) const {
  if (packet->len() < needed_len_) return false;
  for (const KeyField& field : fields_) {
    uint8_t* to = packet->data() + field.offset;
    if (field.is_attr) {
      const int offset = module.attr_offset(field.attr_id);
      if (offset < 0) continue;
      to = packet->metadata(offset);
    }
    uint64_t word = 0;
    uint64_t old = 0;
    std::memcpy(&word, key + field.pos, field.size);
    if (!field.is_attr) std::memcpy(&old, to, field.size);
    word = (word & field.mask) | (old & ~field.mask);
    std::memcpy(to, &word, field.size);
  }
  return true;
}

Status KeyLayout::read(const Args::List& data, IntOrder order, const std::string& where,
                       MatchKey& key) const {
  if (data.size() != fields_.size()) {
    return Status::invalid(where + ": has " + std::to_string(data.size()) + " entries; must have " +
                           std::to_string(fields_.size()) + ", one per field of the module");
  }
  for (size_t i = 0; i < data.size(); ++i) {
    const KeyField& field = fields_[i];
    uint64_t word = 0;
    Status status = read_data(data[i], field.size, is_big(order, field),
                              where + "[" + std::to_string(i) + "]", word);
    if (!status.ok()) return status;
    std::memcpy(key.bytes() + field.pos, &word, field.size);
  }
  return {};
}

Status KeyLayout::check_masks(const MatchKey& key, const std::string& where) const {
  for (size_t i = 0; i < fields_.size(); ++i) {
    uint64_t word = 0;
    std::memcpy(&word, key.bytes() + fields_[i].pos, fields_[i].size);
    if ((word & ~fields_[i].mask) != 0) {
      return Status::invalid(where + "[" + std::to_string(i) +
                             "]: has bits outside the field's mask and could never match");
    }
  }
  return {};
}

Args KeyLayout::fields() const {
  Args::List list;
  for (const KeyField& field : fields_) {
    Args arg;
    if (field.is_attr) {
      arg.set("attr_name", field.attr_name);
    } else {
      arg.set("offset", static_cast<uint64_t>(field.offset));
    }
    arg.set("num_bytes", static_cast<uint64_t>(field.size));
    list.push_back(std::move(arg));
  }
  return list;
}

Args KeyLayout::masks() const {
  Args::List list;
  for (const KeyField& field : fields_) {
    list.push_back(bin(reinterpret_cast<const uint8_t*>(&field.mask), field.size));
  }
  return list;
}

Args KeyLayout::values(const uint8_t* key) const {
  Args::List list;
  for (const KeyField& field : fields_) list.push_back(bin(key + field.pos, field.size));
  return list;
}

}  // namespace e2
