// SPDX-License-Identifier: BSD-3-Clause
// TAPPort: an Ethernet interface of the Linux kernel whose cable ends here.
//
// Creates (or attaches to) a TAP interface. What the kernel sends through the interface is received
// here, and what is sent here arrives at the interface, which is brought up with the port's MTU. It
// goes away with the port unless it was made persistent beforehand.
//
// Queues: one each way.
// Needs: the capability CAP_NET_ADMIN.
// Arguments: TAPPortArg
// Threads: one worker may receive while another sends.
// Losses: frames longer than a packet buffer count as dropped. Packets that the kernel refuses (too
// short, or the interface is down) count as sent and as dropped, so that they don't hold up the
// rest of their batch. Where the interface's queue is full, packets are left to the sender.
// Origin: original to this project.

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "host/port.h"

namespace e2 {
namespace {

constexpr const char* kTunDevice = "/dev/net/tun";

class TAPPort final : public Port {
 public:
  ~TAPPort() override { shut(); }
  Status init(const PortShape& shape, const Args& args) override;
  void receive(Context& ctx, uint32_t queue, Batch& batch, uint32_t max) override;
  uint32_t send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) override;
  Status close() override {
    shut();
    return {};
  }

 private:
  Status attach(const std::string& ifname);
  Status configure(ifreq& request);
  void shut() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  int fd_ = -1;
};

Status TAPPort::init(const PortShape& shape, const Args& args) {
  if (shape.in_queues > 1 || shape.out_queues > 1) {
    return Status::invalid("TAPPort has one queue each way, but num_inc_q is " +
                           std::to_string(shape.in_queues) + " and num_out_q is " +
                           std::to_string(shape.out_queues));
  }
  const std::string& ifname = args["ifname"].as_string();
  if (ifname.size() >= IFNAMSIZ || ifname.find('/') != std::string::npos) {
    return Status::invalid("the interface name 'ifname' is '" + ifname +
                           "', but must have at most 15 characters and no slash");
  }
  Status status = attach(ifname);
  if (!status.ok()) shut();
  return status;
}

Status TAPPort::attach(const std::string& ifname) {
  fd_ = open(kTunDevice, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd_ < 0) {
    const int code = errno;
    return Status::error(code,
                         std::string("cannot open ") + kTunDevice + ": " + std::strerror(code));
  }
  ifreq request{};
  std::memcpy(request.ifr_name, ifname.data(), ifname.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (ioctl(fd_, TUNSETIFF, &request) != 0) {
    const int code = errno;
    return Status::error(code, "cannot attach to the TAP interface '" + ifname +
                                   "': " + std::strerror(code) +
                                   (code == EPERM ? " (CAP_NET_ADMIN is needed)" : ""));
  }
  return configure(request);
}

// Sets MTU and state of the interface that `request` names.
Status TAPPort::configure(ifreq& request) {
  const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (control < 0) return Status::error(errno, "cannot create a socket to configure interfaces");
  const char* failed = nullptr;
  int code = 0;
  request.ifr_mtu = static_cast<int>(config.mtu_bytes);
  if (ioctl(control, SIOCSIFMTU, &request) != 0) {
    failed = "set the MTU of";
  } else if (config.admin_up) {
    request.ifr_flags = 0;
    if (ioctl(control, SIOCGIFFLAGS, &request) == 0) {
      request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);  // NOLINT: ioctl's type
      if (ioctl(control, SIOCSIFFLAGS, &request) != 0) failed = "bring up";
    } else {
      failed = "query";
    }
  }
  if (failed != nullptr) code = errno;
  ::close(control);
  if (failed == nullptr) return {};
  return Status::error(code, std::string("cannot ") + failed + " the TAP interface '" +
                                 request.ifr_name + "': " + std::strerror(code));
}

void TAPPort::receive(Context& ctx, uint32_t, Batch& batch, uint32_t max) {
  const uint32_t wanted = std::min(max, kMaxBatch - batch.size);
  for (uint32_t i = 0; i < wanted; ++i) {
    Batch fresh;
    if (ctx.alloc(fresh, 1, 0) == 0) return;
    Packet* packet = fresh[0];
    uint8_t excess = 0;  // receives a byte when the frame is longer than the buffer
    const uint32_t room = packet->tailroom();
    const iovec vectors[2] = {{packet->data(), room}, {&excess, 1}};
    const ssize_t n = readv(fd_, vectors, 2);
    if (n > 0 && static_cast<uint32_t>(n) <= room) {
      packet->append(static_cast<uint32_t>(n));
      packet->set_time_ns(0);
      packet->set_wire_len(0);
      batch.add(packet);
      continue;
    }
    ctx.free(fresh);
    if (n <= 0) return;
    in.add_dropped(1);
  }
}

uint32_t TAPPort::send(Context& ctx, uint32_t, Packet* const* packets, uint32_t count) {
  uint32_t sent = 0;
  for (; sent < count; ++sent) {
    if (write(fd_, packets[sent]->data(), packets[sent]->len()) >= 0) continue;
    if (errno == EAGAIN || errno == EINTR) break;
    out.add_dropped(1);  // this one is refused (too short, interface down): go on with the next
  }
  if (sent > 0) ctx.free(packets, sent);
  return sent;
}

const PortRegistration kRegistered{{"TAPPort", "tap_port",
                                    "exchanges packets with the kernel through a TAP interface",
                                    "TAPPortArg", [] { return std::make_unique<TAPPort>(); }}};

}  // namespace
}  // namespace e2
