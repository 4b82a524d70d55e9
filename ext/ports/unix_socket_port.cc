// SPDX-License-Identifier: BSD-3-Clause
// UnixSocketPort: exchanges packets with a local process over a UNIX domain socket.
//
// A SOCK_SEQPACKET server; each message is one packet. One client is served at a time: further ones
// are disconnected at once. After the client hangs up, what it has sent is still delivered (for up
// to a second, or until the next client comes), then the place is free.
//
// Queues: one each way.
// Needs: nothing.
// Arguments: UnixSocketPortArg
// Threads: a thread of the port accepts clients and notices when they leave; one worker may receive
// while another sends. A worker marks its side busy around its system calls, so that the thread
// never closes a descriptor in use.
// Losses: without a client, or when its socket buffer is full, packets are left to the sender,
// which counts them as dropped. Messages longer than a packet buffer count as dropped.
// Origin: the driver of this name in BESS; the code is new.

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>

#include "host/port.h"

namespace e2 {
namespace {

constexpr int kNoFd = -1;
constexpr uint64_t kDefaultIntervalNs = 50000;
constexpr int kDrainPollMs = 2;
constexpr int kDrainPolls = 500;
constexpr char kConfirmation[] = "yes";  // sent with its final NUL

class UnixSocketPort final : public Port {
 public:
  ~UnixSocketPort() override { stop(); }
  Status init(const PortShape& shape, const Args& args) override;
  void receive(Context& ctx, uint32_t queue, Batch& batch, uint32_t max) override;
  uint32_t send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) override;
  Status close() override;
  bool link_up() const override { return client_.load(std::memory_order_relaxed) != kNoFd; }

 private:
  // The client's descriptor, safe from being closed while this object lives.
  class Use {
   public:
    Use(std::atomic<bool>& busy, const std::atomic<int>& client) : busy_(busy) {
      busy_.store(true);
      fd_ = client.load();
    }
    ~Use() { busy_.store(false, std::memory_order_release); }
    int fd() const { return fd_; }

   private:
    std::atomic<bool>& busy_;
    int fd_;
  };

  Status listen_at(const std::string& path);
  void serve();
  void accept_client(bool hung_up);
  void drop_client();
  void stop();

  std::string bound_path_;  // to be removed at the end
  uint64_t min_interval_ns_ = kDefaultIntervalNs;
  bool confirm_ = false;
  int listen_fd_ = kNoFd;
  int stop_fd_ = kNoFd;
  std::thread thread_;
  std::atomic<int> client_{kNoFd};
  alignas(kCacheLineBytes) std::atomic<bool> receiving_{false};
  uint64_t idle_since_ns_ = 0;  // time of an empty poll; 0 after one that was not
  alignas(kCacheLineBytes) std::atomic<bool> sending_{false};
};

Status UnixSocketPort::init(const PortShape&, const Args& args) {
  const int64_t interval = args["min_rx_interval_ns"].as_int();
  if (interval != 0) min_interval_ns_ = static_cast<uint64_t>(std::max<int64_t>(interval, 0));
  confirm_ = args["confirm_connect"].as_bool();
  std::string path = args["path"].as_string();
  if (path.empty()) path = "/tmp/bess_unix_" + name;
  Status status = listen_at(path);
  if (status.ok()) {
    stop_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd_ < 0) status = Status::error(errno, "cannot create an eventfd");
  }
  if (status.ok()) {
    try {
      thread_ = std::thread([this] { serve(); });
    } catch (const std::system_error& error) {
      status = Status::error(error.code().value(), "cannot start the thread that accepts clients");
    }
  }
  if (!status.ok()) stop();
  return status;
}

Status UnixSocketPort::listen_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path) || path.find('\0') != std::string::npos) {
    return Status::invalid("the socket path '" + path + "' must have at most " +
                           std::to_string(sizeof(address.sun_path) - 1) +
                           " bytes, none of them zero");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const bool abstract = path[0] == '@';
  if (abstract) {
    address.sun_path[0] = '\0';
  } else {
    struct stat info{};
    if (lstat(path.c_str(), &info) == 0) {
      if (!S_ISSOCK(info.st_mode)) {
        return Status::error(EEXIST, "cannot listen at '" + path +
                                         "': a file that is not a socket "
                                         "is in the way");
      }
      unlink(path.c_str());
    }
  }
  listen_fd_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listen_fd_ < 0) return Status::error(errno, "cannot create a UNIX socket");
  // An abstract name has no final NUL: the length says where it ends.
  const socklen_t length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  if (bind(listen_fd_, reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    const int code = errno;
    return Status::error(code, "cannot listen at '" + path + "': " + std::strerror(code));
  }
  if (!abstract) bound_path_ = path;
  if (listen(listen_fd_, 1) != 0) {
    const int code = errno;
    return Status::error(code, "cannot listen at '" + path + "': " + std::strerror(code));
  }
  return {};
}

void UnixSocketPort::serve() {
  int drain_polls = -1;  // -1: the client has not hung up
  while (true) {
    const int client = client_.load(std::memory_order_relaxed);
    const bool hung_up = drain_polls >= 0;
    pollfd fds[3] = {
        {stop_fd_, POLLIN, 0}, {listen_fd_, POLLIN, 0}, {hung_up ? kNoFd : client, POLLRDHUP, 0}};
    if (poll(fds, 3, hung_up ? kDrainPollMs : -1) < 0 && errno != EINTR) return;
    if (fds[0].revents != 0) return;
    if (fds[2].revents & (POLLRDHUP | POLLHUP | POLLERR)) drain_polls = 0;
    if (drain_polls >= 0) {
      int unread = 0;
      const bool more = ioctl(client, FIONREAD, &unread) == 0 && unread > 0;
      if (!more || ++drain_polls > kDrainPolls) {
        drop_client();
        drain_polls = -1;
      }
    }
    if (fds[1].revents & POLLIN) {
      accept_client(drain_polls >= 0);
      if (client_.load(std::memory_order_relaxed) != client) drain_polls = -1;
    }
  }
}

void UnixSocketPort::accept_client(bool hung_up) {
  const int fd = accept4(listen_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  if (hung_up) drop_client();
  if (client_.load(std::memory_order_relaxed) != kNoFd) {
    ::close(fd);
    return;
  }
  client_.store(fd);
  if (confirm_) {
    // A client that is gone already will be noticed by the next poll.
    (void)!::send(fd, kConfirmation, sizeof(kConfirmation), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

void UnixSocketPort::drop_client() {
  const int fd = client_.exchange(kNoFd);
  if (fd == kNoFd) return;
  while (receiving_.load() || sending_.load()) std::this_thread::yield();
  ::close(fd);
}

void UnixSocketPort::stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    (void)!write(stop_fd_, &one, sizeof(one));
    thread_.join();
  }
  drop_client();
  for (int* fd : {&listen_fd_, &stop_fd_}) {
    if (*fd != kNoFd) ::close(*fd);
    *fd = kNoFd;
  }
  if (!bound_path_.empty()) unlink(bound_path_.c_str());
  bound_path_.clear();
}

Status UnixSocketPort::close() {
  stop();
  return {};
}

void UnixSocketPort::receive(Context& ctx, uint32_t, Batch& batch, uint32_t max) {
  if (client_.load(std::memory_order_relaxed) == kNoFd) {
    idle_since_ns_ = 0;
    return;
  }
  if (idle_since_ns_ != 0 && ctx.now_ns - idle_since_ns_ < min_interval_ns_) return;
  Batch fresh;
  const uint32_t room = ctx.alloc(fresh, std::min(max, kMaxBatch - batch.size), 0);
  if (room == 0) return;
  iovec vectors[kMaxBatch];
  mmsghdr messages[kMaxBatch];
  for (uint32_t i = 0; i < room; ++i) {
    vectors[i] = {fresh[i]->data(), fresh[i]->tailroom()};
    messages[i] = {};
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  int got = 0;
  {
    const Use use(receiving_, client_);
    if (use.fd() != kNoFd) got = recvmmsg(use.fd(), messages, room, MSG_DONTWAIT, nullptr);
  }
  uint32_t added = 0, unused = 0;
  for (uint32_t i = 0; i < room; ++i) {
    Packet* packet = fresh[i];
    const bool filled = static_cast<int>(i) < got && messages[i].msg_len > 0;
    if (filled && !(messages[i].msg_hdr.msg_flags & MSG_TRUNC)) {
      packet->append(messages[i].msg_len);
      packet->set_time_ns(0);
      packet->set_wire_len(0);
      batch.add(packet);
      ++added;
    } else {
      if (filled) in[0].add_dropped(1);
      fresh.packets[unused++] = packet;
    }
  }
  if (unused > 0) ctx.free(fresh.packets, unused);
  idle_since_ns_ = added == 0 ? ctx.now_ns : 0;
}

uint32_t UnixSocketPort::send(Context& ctx, uint32_t, Packet* const* packets, uint32_t count) {
  if (client_.load(std::memory_order_relaxed) == kNoFd) return 0;
  count = std::min(count, kMaxBatch);
  iovec vectors[kMaxBatch];
  mmsghdr messages[kMaxBatch];
  for (uint32_t i = 0; i < count; ++i) {
    vectors[i] = {packets[i]->data(), packets[i]->len()};
    messages[i] = {};
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  int sent = 0;
  {
    const Use use(sending_, client_);
    if (use.fd() != kNoFd) {
      sent = sendmmsg(use.fd(), messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
  }
  if (sent <= 0) return 0;
  ctx.free(packets, static_cast<uint32_t>(sent));
  return static_cast<uint32_t>(sent);
}

const PortRegistration kRegistered{
    {"UnixSocketPort", "unix_port", "exchanges packets with a process over a UNIX domain socket",
     "UnixSocketPortArg", [] { return std::make_unique<UnixSocketPort>(); }}};

}  // namespace
}  // namespace e2
