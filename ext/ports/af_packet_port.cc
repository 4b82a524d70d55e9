// SPDX-License-Identifier: BSD-3-Clause
// AFPacketPort: sends and receives on an existing network interface of the Linux kernel.
//
// Receives every frame that arrives at the interface through a memory-mapped TPACKET_V2 ring, and
// sends frames out of it in batches. Frames that this host itself sends through the interface are
// not received. The kernel keeps receiving its own copies; use an interface without addresses to
// have it alone. Packets carry the kernel's arrival time. A VLAN tag that the kernel has taken off
// is put back. Frames from a local peer (veth) may have unfinished checksums, as the kernel leaves
// these to hardware. A frame is there at once and wakes a worker that sleeps, unlike with
// TPACKET_V3, whose blocks of frames the kernel hands over when they are full or 1 ms old. There is
// room for 7,680 frames, shared by the in queues, and for 960 of each at least.
//
// Queues: up to 32 each way. The kernel keeps the frames of a flow in one in queue (PACKET_FANOUT
// by hash).
// Needs: the capability CAP_NET_RAW.
// Arguments: AFPacketPortArg
// Threads: one worker may receive from each in queue, and one may send to each out queue.
// Losses: frames longer than a packet buffer, and frames that the kernel had no ring space for,
// count as dropped. Packets that the interface refuses (longer than its MTU, or the interface is
// down) count as sent and as dropped, so that they don't hold up the rest of their batch. Where the
// interface's queue is full, packets are left to the sender.
// Origin: original to this project.

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "host/port.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

namespace e2 {
namespace {

constexpr uint32_t kBlockBytes = 256 << 10;
constexpr uint32_t kBlocks = 64;  // of all in queues
constexpr uint32_t kLeastBlocks = 8;
constexpr uint32_t kLinkOffset = TPACKET_ALIGN(sizeof(tpacket2_hdr));
// Before a frame's network header: where the kernel leaves 16 bytes at least for those of the link.
constexpr uint32_t kNetworkOffset = TPACKET_ALIGN(TPACKET2_HDRLEN + 16);
constexpr uint64_t kNsPerSecond = 1000000000;
constexpr uint32_t kMacBytes = 12;
constexpr uint32_t kTagBytes = 4;

class AFPacketPort final : public Port {
 public:
  ~AFPacketPort() override { shut(); }
  Status init(const PortShape& shape, const Args& args) override;
  void receive(Context& ctx, uint32_t queue, Batch& batch, uint32_t max) override;
  uint32_t send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) override;
  int wake_fd(uint32_t queue) const override { return receivers_[queue].fd; }
  Status close() override {
    for (uint32_t q = 0; q < receivers_.size(); ++q) count_kernel_drops(q);
    shut();
    return {};
  }

 private:
  // An in queue: a socket with its receive ring, whose slots the kernel fills in turn.
  struct Receiver {
    int fd = -1;
    uint8_t* ring = nullptr;
    uint32_t blocks = 0;
    uint32_t slot_bytes = 0;
    uint32_t block = 0;   // of the next frame
    uint32_t offset = 0;  // of the next frame, in its block

    tpacket2_hdr& next() const {
      return *reinterpret_cast<tpacket2_hdr*>(ring + size_t{block} * kBlockBytes + offset);
    }
    bool ready() const {
      return __atomic_load_n(&next().tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER;
    }
    void release();
  };

  Status open_receiver(Receiver& receiver, sockaddr_ll address);
  Status join(std::vector<Receiver>& receivers);
  Status open_sockets(int ifindex, bool promiscuous, const PortShape& shape);
  Status failed(const char* what) const;
  static bool take_frame(const tpacket2_hdr& frame, Packet& packet);
  void count_kernel_drops(uint32_t queue);
  void shut();

  std::string ifname_;
  std::vector<Receiver> receivers_;
  std::vector<int> tx_fds_;
};

Status AFPacketPort::init(const PortShape& shape, const Args& args) {
  const std::string& ifname = ifname_ = args["ifname"].as_string();
  if (ifname.empty()) {
    return Status::invalid("AFPacketPort needs 'ifname', the name of a network interface");
  }
  const unsigned ifindex = if_nametoindex(ifname.c_str());
  if (ifindex == 0) {
    return Status::error(ENODEV, "there is no network interface '" + ifname + "' ('ifname')");
  }
  Status status = open_sockets(static_cast<int>(ifindex), args["promiscuous"].as_bool(), shape);
  if (!status.ok()) shut();
  return status;
}

Status AFPacketPort::failed(const char* what) const {
  const int code = errno;
  return Status::error(code, std::string("cannot ") + what + " for the interface '" + ifname_ +
                                 "': " + std::strerror(code) +
                                 (code == EPERM ? " (CAP_NET_RAW is needed)" : ""));
}

Status AFPacketPort::open_receiver(Receiver& receiver, sockaddr_ll address) {
  // Protocol 0: nothing arrives before the socket is bound to its interface.
  receiver.fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (receiver.fd < 0) return failed("create a packet socket");
  const int version = TPACKET_V2;
  if (setsockopt(receiver.fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) != 0) {
    return failed("use TPACKET_V2");
  }
  tpacket_req request{};
  request.tp_block_size = kBlockBytes;
  request.tp_block_nr = receiver.blocks;
  request.tp_frame_size = receiver.slot_bytes;
  request.tp_frame_nr = kBlockBytes / receiver.slot_bytes * receiver.blocks;
  if (setsockopt(receiver.fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)) != 0) {
    return failed("set up a receive ring");
  }
  void* ring = mmap(nullptr, size_t{kBlockBytes} * receiver.blocks, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_POPULATE, receiver.fd, 0);
  if (ring == MAP_FAILED) return failed("map the receive ring");
  receiver.ring = static_cast<uint8_t*>(ring);
  const int ignore = 1;  // older kernels lack it: receive looks at the packet type as well
  (void)setsockopt(receiver.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &ignore, sizeof(ignore));
  // Until all have joined, each socket would get every frame: a filter keeps everything out.
  sock_filter nothing[] = {{BPF_RET | BPF_K, 0, 0, 0}};
  const sock_fprog filter = {1, nothing};
  if (setsockopt(receiver.fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) != 0) {
    return failed("filter a packet socket");
  }
  address.sll_protocol = htons(ETH_P_ALL);
  if (bind(receiver.fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return failed("bind a receiving socket");
  }
  return {};
}

// Has the kernel spread the frames over the sockets, each flow to one of them.
Status AFPacketPort::join(std::vector<Receiver>& receivers) {
  int group = 0;
  for (size_t q = 0; q < receivers.size() && receivers.size() > 1; ++q) {
    const int mode = PACKET_FANOUT_HASH | (q == 0 ? PACKET_FANOUT_FLAG_UNIQUEID : 0);
    const int option = group | mode << 16;
    if (setsockopt(receivers[q].fd, SOL_PACKET, PACKET_FANOUT, &option, sizeof(option)) != 0) {
      return failed("spread frames over several queues");
    }
    socklen_t length = sizeof(group);
    if (getsockopt(receivers[q].fd, SOL_PACKET, PACKET_FANOUT, &group, &length) != 0) {
      return failed("name a group of queues");
    }
    group &= 0xffff;
  }
  for (const Receiver& receiver : receivers) {
    const int unused = 0;
    if (setsockopt(receiver.fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused)) != 0) {
      return failed("open a packet socket");
    }
  }
  return {};
}

Status AFPacketPort::open_sockets(int ifindex, bool promiscuous, const PortShape& shape) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = ifindex;
  // Whatever a slot has no room for is too long for a packet, too.
  const uint32_t slot_bytes =
      (kNetworkOffset + shape.packet_bytes + kCacheLineBytes - 1) & ~(kCacheLineBytes - 1);
  if (slot_bytes > kBlockBytes) {
    return Status::invalid("AFPacketPort receives packets of up to " +
                           std::to_string(kBlockBytes - kNetworkOffset) +
                           " bytes, but buffers have " + std::to_string(shape.packet_bytes));
  }
  receivers_.resize(shape.in_queues);
  for (Receiver& receiver : receivers_) {
    receiver.blocks = std::max(kLeastBlocks, kBlocks / shape.in_queues);
    receiver.slot_bytes = slot_bytes;
    Status status = open_receiver(receiver, address);
    if (!status.ok()) return status;
  }
  for (uint32_t q = 0; q < shape.out_queues; ++q) {
    tx_fds_.push_back(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (tx_fds_.back() < 0) return failed("create a packet socket");
    if (bind(tx_fds_.back(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      return failed("bind a sending socket");
    }
  }
  if (promiscuous && !receivers_.empty()) {
    packet_mreq membership{};
    membership.mr_ifindex = ifindex;
    membership.mr_type = PACKET_MR_PROMISC;
    if (setsockopt(receivers_[0].fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership,
                   sizeof(membership)) != 0) {
      return failed("turn on promiscuous mode");
    }
  }
  return join(receivers_);
}

void AFPacketPort::shut() {
  for (const Receiver& receiver : receivers_) {
    if (receiver.ring != nullptr) munmap(receiver.ring, size_t{kBlockBytes} * receiver.blocks);
    if (receiver.fd >= 0) ::close(receiver.fd);
  }
  receivers_.clear();
  for (const int fd : tx_fds_) {
    if (fd >= 0) ::close(fd);
  }
  tx_fds_.clear();
}

void AFPacketPort::count_kernel_drops(uint32_t queue) {
  tpacket_stats stats{};
  socklen_t length = sizeof(stats);
  if (getsockopt(receivers_[queue].fd, SOL_PACKET, PACKET_STATISTICS, &stats, &length) == 0 &&
      stats.tp_drops > 0) {
    in[queue].add_dropped(stats.tp_drops);
  }
}

void AFPacketPort::Receiver::release() {
  __atomic_store_n(&next().tp_status, uint32_t{TP_STATUS_KERNEL}, __ATOMIC_RELEASE);
  offset += slot_bytes;
  if (offset + slot_bytes > kBlockBytes) {
    offset = 0;
    block = block + 1 == blocks ? 0 : block + 1;
  }
  const auto* at = reinterpret_cast<const uint8_t*>(&next());
  __builtin_prefetch(at);
  __builtin_prefetch(at + kCacheLineBytes);
}

// Copies a frame of the ring into the packet; false when it is too long.
bool AFPacketPort::take_frame(const tpacket2_hdr& frame, Packet& packet) {
  const uint32_t bytes = frame.tp_snaplen;
  if (bytes != frame.tp_len) return false;  // the slot was too small
  const uint8_t* data = reinterpret_cast<const uint8_t*>(&frame) + frame.tp_mac;
  const bool tagged = (frame.tp_status & TP_STATUS_VLAN_VALID) && bytes >= kMacBytes;
  uint8_t* to = packet.append(bytes + (tagged ? kTagBytes : 0));
  if (to == nullptr) return false;
  if (tagged) {
    const uint16_t tpid =
        (frame.tp_status & TP_STATUS_VLAN_TPID_VALID) ? frame.tp_vlan_tpid : uint16_t{ETH_P_8021Q};
    const uint16_t tag[2] = {htons(tpid), htons(frame.tp_vlan_tci)};
    std::memcpy(to, data, kMacBytes);
    std::memcpy(to + kMacBytes, tag, kTagBytes);
    std::memcpy(to + kMacBytes + kTagBytes, data + kMacBytes, bytes - kMacBytes);
  } else {
    std::memcpy(to, data, bytes);
  }
  packet.set_time_ns(frame.tp_sec * kNsPerSecond + frame.tp_nsec);
  packet.set_wire_len(0);
  return true;
}

void AFPacketPort::receive(Context& ctx, uint32_t queue, Batch& batch, uint32_t max) {
  Receiver& from = receivers_[queue];
  if (!from.ready()) return;
  Batch fresh;
  const uint32_t room = ctx.alloc(fresh, std::min(max, kMaxBatch - batch.size), 0);
  uint32_t used = 0;
  bool losing = false;
  for (; used < room && from.ready(); from.release()) {
    const tpacket2_hdr& frame = from.next();
    losing |= (frame.tp_status & TP_STATUS_LOSING) != 0;
    const auto* link = reinterpret_cast<const sockaddr_ll*>(
        reinterpret_cast<const uint8_t*>(&frame) + kLinkOffset);
    if (link->sll_pkttype == PACKET_OUTGOING) continue;
    if (take_frame(frame, *fresh[used])) {
      batch.add(fresh[used++]);
    } else {
      in[queue].add_dropped(1);
    }
  }
  if (losing) count_kernel_drops(queue);
  if (used < room) ctx.free(fresh.packets + used, room - used);
}

uint32_t AFPacketPort::send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) {
  count = std::min(count, kMaxBatch);
  iovec vectors[kMaxBatch];
  mmsghdr messages[kMaxBatch];
  for (uint32_t i = 0; i < count; ++i) {
    vectors[i] = {packets[i]->data(), packets[i]->len()};
    messages[i] = {};
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  uint32_t sent = 0;
  while (sent < count) {
    const int n = sendmmsg(tx_fds_[queue], messages + sent, count - sent, MSG_DONTWAIT);
    if (n > 0) {
      sent += static_cast<uint32_t>(n);
    } else if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR) {
      break;
    } else {
      out[queue].add_dropped(1);  // this one is refused: go on with the next
      ++sent;
    }
  }
  if (sent > 0) ctx.free(packets, sent);
  return sent;
}

const PortRegistration kRegistered{
    {"AFPacketPort", "af_packet_port", "sends and receives on a network interface of the kernel",
     "AFPacketPortArg", [] { return std::make_unique<AFPacketPort>(); }, kMaxQueues}};

}  // namespace
}  // namespace e2
