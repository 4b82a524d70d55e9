// SPDX-License-Identifier: BSD-3-Clause
// Status: the result of a control operation. `code` is an errno value, 0 for success.
#pragma once

#include <cerrno>
#include <string>
#include <utility>

namespace e2 {

struct [[nodiscard]] Status {
  int code = 0;
  std::string message;

  bool ok() const { return code == 0; }
  static Status error(int code, std::string message) { return {code, std::move(message)}; }
  static Status invalid(std::string message) { return {EINVAL, std::move(message)}; }
};

}  // namespace e2
