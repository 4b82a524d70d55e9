// SPDX-License-Identifier: BSD-3-Clause
#include "host/live_table.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace e2 {
namespace {

#if !defined(__SANITIZE_THREAD__)
bool membarrier(int command) { return syscall(__NR_membarrier, command, 0, 0) == 0; }
#endif

constexpr uint32_t kSpins = 100;
constexpr uint32_t kYields = 1000;

}  // namespace

#if defined(__SANITIZE_THREAD__)
bool can_fence_threads() { return false; }
void fence_threads() {}
#else
bool can_fence_threads() {
  static const bool registered = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
  return registered;
}
void fence_threads() {
  // Once registered it fails only while the kernel is short of memory.
  for (uint32_t round = 0; !membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED); ++round) {
    wait_for_reader(round);
  }
}
#endif

void wait_for_reader(uint32_t round) {
  if (round < kSpins) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  } else if (round < kYields) {
    std::this_thread::yield();
  } else {
    // The reader shares this core, or has lost its own.
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

}  // namespace e2
