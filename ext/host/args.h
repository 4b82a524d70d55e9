// SPDX-License-Identifier: BSD-3-Clause
// Args: arguments and results of control operations, as a tree of plain values.
//
// It mirrors what a protobuf message holds without a line of protobuf code: a map of field names to
// scalars, byte strings, lists and further maps. Strings and bytes are one kind. The accessors with
// a default return it when a field is absent or of another kind; `has` tells the two apart.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

class Args {
 public:
  using List = std::vector<Args>;
  using Map = std::map<std::string, Args>;

  Args() = default;
  Args(bool value) : value_(value) {}                       // NOLINT(google-explicit-constructor)
  Args(int value) : value_(static_cast<int64_t>(value)) {}  // NOLINT(google-explicit-constructor)
  Args(int64_t value) : value_(value) {}                    // NOLINT(google-explicit-constructor)
  Args(uint64_t value) : value_(value) {}                   // NOLINT(google-explicit-constructor)
  Args(double value) : value_(value) {}                     // NOLINT(google-explicit-constructor)
  Args(std::string value) : value_(std::move(value)) {}     // NOLINT(google-explicit-constructor)
  Args(const char* value) : value_(std::string(value)) {}   // NOLINT(google-explicit-constructor)
  Args(List value) : value_(std::move(value)) {}            // NOLINT(google-explicit-constructor)
  Args(Map value) : value_(std::move(value)) {}             // NOLINT(google-explicit-constructor)

  bool has(const std::string& key) const { return find(key) != nullptr; }
  // The member `key`; an empty Args where there is none.
  const Args& operator[](const std::string& key) const;
  // Sets a member, turning an empty Args into a map.
  void set(const std::string& key, Args value);

  bool as_bool(bool fallback = false) const;
  int64_t as_int(int64_t fallback = 0) const;
  uint64_t as_uint(uint64_t fallback = 0) const;
  double as_double(double fallback = 0) const;
  const std::string& as_string() const;
  const List& as_list() const;
  const Map& as_map() const;

  const std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, List, Map>&
  value() const {
    return value_;
  }

 private:
  const Args* find(const std::string& key) const;

  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, List, Map> value_;
};

}  // namespace e2
#pragma GCC visibility pop
