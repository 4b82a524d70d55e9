// SPDX-License-Identifier: BSD-3-Clause
#include "host/bell.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ctime>

namespace e2 {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;

}  // namespace

Bell::Bell(uint32_t wid)
    : wid_(wid), polled_{{eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), POLLIN, 0}} {}

Bell::~Bell() {
  if (polled_[0].fd >= 0) ::close(polled_[0].fd);
}

void Bell::watch(const std::vector<int>& fds) {
  polled_.resize(1);
  for (const int fd : fds) polled_.push_back({fd, POLLIN, 0});
}

void Bell::strike() {
  const uint64_t one = 1;
  // It fails where there is no descriptor, and sleep ends by its time.
  (void)!write(polled_[0].fd, &one, sizeof(one));
}

Bell::Woken Bell::wait(uint64_t ns, bool watched) {
  const timespec longest = {static_cast<time_t>(ns / kNsPerSecond),
                            static_cast<long>(ns % kNsPerSecond)};  // NOLINT: the system's type
  if (ppoll(polled_.data(), watched ? polled_.size() : 1, &longest, nullptr) <= 0) {
    return Woken::kByTime;
  }
  if (polled_[0].revents != 0) {
    uint64_t rings;
    (void)!read(polled_[0].fd, &rings, sizeof(rings));
    return Woken::kByRing;
  }
  for (const pollfd& polled : polled_) {
    if ((polled.revents & POLLERR) == 0) continue;
    // A socket's pending error (its interface went down) would wake for ever: asking clears it.
    int error;
    socklen_t length = sizeof(error);
    (void)getsockopt(polled.fd, SOL_SOCKET, SO_ERROR, &error, &length);
  }
  return Woken::kByWatched;
}

}  // namespace e2
