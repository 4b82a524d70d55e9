// SPDX-License-Identifier: BSD-3-Clause
// TAPPort: an Ethernet interface of the Linux kernel whose cable ends here.
//
// Creates (or attaches to) a TAP interface. What the kernel sends through the interface is received
// here, and what is sent here arrives at the interface, which is brought up with the port's MTU. It
// goes away with the port unless it was made persistent beforehand. The port's MAC address, MTU and
// state are those of the interface, and can be changed.
//
// Queues: up to 32 each way. With several in queues the interface has as many, and the kernel keeps
// the packets of a flow in one of them: that which packets of the flow were last sent to, if any.
// Needs: the capability CAP_NET_ADMIN.
// Arguments: TAPPortArg
// Threads: one worker may receive from each queue while others send.
// Losses: frames longer than a packet buffer count as dropped. Packets that the kernel refuses (too
// short, or the interface is down) count as sent and as dropped, so that they don't hold up the
// rest of their batch. Where the interface's queue is full, packets are left to the sender.
// Origin: original to this project.

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/ether.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "host/port.h"

namespace e2 {
namespace {

constexpr size_t kMacTextBytes = 18;
constexpr const char* kTunDevice = "/dev/net/tun";

class TAPPort final : public Port {
 public:
  ~TAPPort() override { shut(); }
  Status init(const PortShape& shape, const Args& args) override;
  void receive(Context& ctx, uint32_t queue, Batch& batch, uint32_t max) override;
  uint32_t send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) override;
  Status configure(const PortConfig& wanted) override;
  int wake_fd(uint32_t queue) const override { return fds_[queue]; }
  Status close() override {
    shut();
    return {};
  }

 private:
  Status attach(ifreq& request, bool many);
  template <typename Change>
  Status control(Change change);
  Status set_up(const PortConfig& wanted);
  void shut() {
    for (const int fd : fds_) ::close(fd);
    fds_.clear();
  }
  Status read_address();
  // The kernel lets many threads write to one queue.
  int send_fd(uint32_t queue) const { return fds_[queue % fds_.size()]; }

  std::string ifname_;
  std::vector<int> fds_;  // of each in queue, one at least
};

Status TAPPort::init(const PortShape& shape, const Args& args) {
  const std::string& ifname = args["ifname"].as_string();
  if (ifname.size() >= IFNAMSIZ || ifname.find('/') != std::string::npos) {
    return Status::invalid("the interface name 'ifname' is '" + ifname +
                           "', but must have at most 15 characters and no slash");
  }
  ifreq request{};
  std::memcpy(request.ifr_name, ifname.data(), ifname.size());
  Status status;
  for (uint32_t q = 0; q < std::max(1u, shape.in_queues) && status.ok(); ++q) {
    status = attach(request, shape.in_queues > 1);
  }
  if (status.ok()) {
    ifname_ = request.ifr_name;
    status = set_up(config);
  }
  if (status.ok()) status = read_address();
  if (!status.ok()) shut();
  return status;
}

// Opens one more queue of the interface that `request` names; the first one gives it its name.
Status TAPPort::attach(ifreq& request, bool many) {
  const int fd = open(kTunDevice, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    const int code = errno;
    return Status::error(code,
                         std::string("cannot open ") + kTunDevice + ": " + std::strerror(code));
  }
  fds_.push_back(fd);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | (many ? IFF_MULTI_QUEUE : 0);
  if (ioctl(fd, TUNSETIFF, &request) == 0) return {};
  const int code = errno;
  return Status::error(
      code, std::string("cannot attach to the TAP interface '") + request.ifr_name +
                "': " + std::strerror(code) + (code == EPERM ? " (CAP_NET_ADMIN is needed)" : "") +
                (code == EINVAL ? " (it was made with another number of queues)" : ""));
}

// Runs `change` on a socket and a request that name the interface; it answers what it failed to do,
// or nullptr.
template <typename Change>
Status TAPPort::control(Change change) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return Status::error(errno, "cannot create a socket to configure interfaces");
  ifreq request{};
  std::memcpy(request.ifr_name, ifname_.data(), ifname_.size());
  const char* failed = change(fd, request);
  const int code = errno;
  ::close(fd);
  if (failed == nullptr) return {};
  return Status::error(code, std::string("cannot ") + failed + " the TAP interface '" + ifname_ +
                                 "': " + std::strerror(code));
}

Status TAPPort::set_up(const PortConfig& wanted) {
  return control([&](int fd, ifreq& request) -> const char* {
    request.ifr_mtu = static_cast<int>(wanted.mtu_bytes);
    if (ioctl(fd, SIOCSIFMTU, &request) != 0) return "set the MTU of";
    request.ifr_flags = 0;
    if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) return "query";
    const int flags = wanted.admin_up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP;
    request.ifr_flags = static_cast<short>(flags);  // NOLINT: ioctl's type
    return ioctl(fd, SIOCSIFFLAGS, &request) == 0 ? nullptr : "change the state of";
  });
}

Status TAPPort::read_address() {
  return control([&](int fd, ifreq& request) -> const char* {
    if (ioctl(fd, SIOCGIFHWADDR, &request) != 0) return "query the address of";
    char text[kMacTextBytes];
    const auto* mac = reinterpret_cast<const uint8_t*>(request.ifr_hwaddr.sa_data);
    std::snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
                  mac[3], mac[4], mac[5]);
    config.mac_addr = text;
    return nullptr;
  });
}

Status TAPPort::configure(const PortConfig& wanted) {
  if (wanted.mac_addr != config.mac_addr) {
    Status status = control([&](int fd, ifreq& request) -> const char* {
      request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
      auto* mac = reinterpret_cast<ether_addr*>(request.ifr_hwaddr.sa_data);
      if (ether_aton_r(wanted.mac_addr.c_str(), mac) == nullptr) {
        errno = EINVAL;
        return "read the new address of";
      }
      return ioctl(fd, SIOCSIFHWADDR, &request) == 0 ? nullptr : "set the address of";
    });
    if (!status.ok()) return status;
  }
  return set_up(wanted);
}

void TAPPort::receive(Context& ctx, uint32_t queue, Batch& batch, uint32_t max) {
  const uint32_t wanted = std::min(max, kMaxBatch - batch.size);
  for (uint32_t i = 0; i < wanted; ++i) {
    Batch fresh;
    if (ctx.alloc(fresh, 1, 0) == 0) return;
    Packet* packet = fresh[0];
    uint8_t excess = 0;  // receives a byte when the frame is longer than the buffer
    const uint32_t room = packet->tailroom();
    const iovec vectors[2] = {{packet->data(), room}, {&excess, 1}};
    const ssize_t n = readv(fds_[queue], vectors, 2);
    if (n > 0 && static_cast<uint32_t>(n) <= room) {
      packet->append(static_cast<uint32_t>(n));
      packet->set_time_ns(0);
      packet->set_wire_len(0);
      batch.add(packet);
      continue;
    }
    ctx.free(fresh);
    if (n <= 0) return;
    in[queue].add_dropped(1);
  }
}

uint32_t TAPPort::send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) {
  uint32_t sent = 0;
  for (; sent < count; ++sent) {
    if (write(send_fd(queue), packets[sent]->data(), packets[sent]->len()) >= 0) continue;
    if (errno == EAGAIN || errno == EINTR) break;
    out[queue].add_dropped(
        1);  // this one is refused (too short, interface down): go on with the next
  }
  if (sent > 0) ctx.free(packets, sent);
  return sent;
}

const PortRegistration kRegistered{
    {"TAPPort", "tap_port", "exchanges packets with the kernel through a TAP interface",
     "TAPPortArg", [] { return std::make_unique<TAPPort>(); }, kMaxQueues}};

}  // namespace
}  // namespace e2
