// SPDX-License-Identifier: BSD-3-Clause
#include "host/args.h"

namespace e2 {
namespace {

const Args kNone;
const std::string kNoString;
const Args::List kNoList;
const Args::Map kNoMap;

// Any numeric alternative converted to T, or the fallback.
template <typename T, typename V>
T number(const V& value, T fallback) {
  if (const auto* b = std::get_if<bool>(&value)) return static_cast<T>(*b);
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<T>(*i);
  if (const auto* u = std::get_if<uint64_t>(&value)) return static_cast<T>(*u);
  if (const auto* d = std::get_if<double>(&value)) return static_cast<T>(*d);
  return fallback;
}

}  // namespace

const Args* Args::find(const std::string& key) const {
  const auto* map = std::get_if<Map>(&value_);
  if (map == nullptr) return nullptr;
  const auto it = map->find(key);
  return it == map->end() ? nullptr : &it->second;
}

const Args& Args::operator[](const std::string& key) const {
  const Args* found = find(key);
  return found == nullptr ? kNone : *found;
}

void Args::set(const std::string& key, Args value) {
  if (!std::holds_alternative<Map>(value_)) value_ = Map{};
  std::get<Map>(value_)[key] = std::move(value);
}

bool Args::as_bool(bool fallback) const { return number<int64_t>(value_, fallback) != 0; }
int64_t Args::as_int(int64_t fallback) const { return number<int64_t>(value_, fallback); }
uint64_t Args::as_uint(uint64_t fallback) const { return number<uint64_t>(value_, fallback); }
double Args::as_double(double fallback) const { return number<double>(value_, fallback); }

const std::string& Args::as_string() const {
  const auto* s = std::get_if<std::string>(&value_);
  return s == nullptr ? kNoString : *s;
}
const Args::List& Args::as_list() const {
  const auto* l = std::get_if<List>(&value_);
  return l == nullptr ? kNoList : *l;
}
const Args::Map& Args::as_map() const {
  const auto* m = std::get_if<Map>(&value_);
  return m == nullptr ? kNoMap : *m;
}

}  // namespace e2
