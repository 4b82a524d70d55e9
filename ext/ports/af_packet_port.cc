// SPDX-License-Identifier: BSD-3-Clause
// AFPacketPort: sends and receives on an existing network interface of the Linux kernel.
//
// Receives every frame that arrives at the interface through a memory-mapped TPACKET_V3 ring, and
// sends frames out of it in batches. Frames that this host itself sends through the interface are
// not received. The kernel keeps receiving its own copies; use an interface without addresses to
// have it alone. Packets carry the kernel's arrival time. A VLAN tag that the kernel has taken off
// is put back. Frames from a local peer (veth) may have unfinished checksums, as the kernel leaves
// these to hardware. The kernel hands over a block of frames when it is full, or 1 ms old.
//
// Queues: one each way.
// Needs: the capability CAP_NET_RAW.
// Arguments: AFPacketPortArg
// Threads: one worker may receive while another sends.
// Losses: frames longer than a packet buffer, and frames that the kernel had no ring space for,
// count as dropped. Packets that the interface refuses (longer than its MTU, or the interface is
// down) count as sent and as dropped, so that they don't hold up the rest of their batch. Where the
// interface's queue is full, packets are left to the sender.
// Origin: original to this project.

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "host/port.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

namespace e2 {
namespace {

constexpr uint32_t kBlockBytes = 256 << 10;
constexpr uint32_t kBlocks = 64;
constexpr uint32_t kFrameBytes = 2048;
constexpr uint32_t kRetireMs = 1;
constexpr uint64_t kNsPerSecond = 1000000000;
constexpr uint32_t kMacBytes = 12;
constexpr uint32_t kTagBytes = 4;

class AFPacketPort final : public Port {
 public:
  ~AFPacketPort() override { shut(); }
  Status init(const PortShape& shape, const Args& args) override;
  void receive(Context& ctx, uint32_t queue, Batch& batch, uint32_t max) override;
  uint32_t send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) override;
  Status close() override {
    count_kernel_drops();
    shut();
    return {};
  }

 private:
  Status open_sockets(const std::string& ifname, int ifindex, bool promiscuous);
  bool open_block();
  void release_block();
  bool take_frame(const tpacket3_hdr& frame, Packet& packet);
  void count_kernel_drops();
  void shut();

  int rx_fd_ = -1;
  int tx_fd_ = -1;
  uint8_t* ring_ = nullptr;
  uint32_t block_index_ = 0;
  uint32_t frames_left_ = 0;             // in the current block
  const tpacket3_hdr* frame_ = nullptr;  // the next one; nullptr: no block is held
};

tpacket_hdr_v1& block_header(uint8_t* ring, uint32_t index) {
  return reinterpret_cast<tpacket_block_desc*>(ring + size_t{index} * kBlockBytes)->hdr.bh1;
}

Status AFPacketPort::init(const PortShape& shape, const Args& args) {
  if (shape.in_queues > 1 || shape.out_queues > 1) {
    return Status::invalid("AFPacketPort has one queue each way, but num_inc_q is " +
                           std::to_string(shape.in_queues) + " and num_out_q is " +
                           std::to_string(shape.out_queues));
  }
  const std::string& ifname = args["ifname"].as_string();
  if (ifname.empty()) {
    return Status::invalid("AFPacketPort needs 'ifname', the name of a network interface");
  }
  const unsigned ifindex = if_nametoindex(ifname.c_str());
  if (ifindex == 0) {
    return Status::error(ENODEV, "there is no network interface '" + ifname + "' ('ifname')");
  }
  Status status = open_sockets(ifname, static_cast<int>(ifindex), args["promiscuous"].as_bool());
  if (!status.ok()) shut();
  return status;
}

Status AFPacketPort::open_sockets(const std::string& ifname, int ifindex, bool promiscuous) {
  const auto failed = [&ifname](const char* what) {
    const int code = errno;
    return Status::error(code, std::string("cannot ") + what + " for the interface '" + ifname +
                                   "': " + std::strerror(code) +
                                   (code == EPERM ? " (CAP_NET_RAW is needed)" : ""));
  };
  // Protocol 0: nothing arrives before the socket is bound to its interface.
  rx_fd_ = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  tx_fd_ = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (rx_fd_ < 0 || tx_fd_ < 0) return failed("create packet sockets");
  const int version = TPACKET_V3;
  if (setsockopt(rx_fd_, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) != 0) {
    return failed("use TPACKET_V3");
  }
  tpacket_req3 request{};
  request.tp_block_size = kBlockBytes;
  request.tp_block_nr = kBlocks;
  request.tp_frame_size = kFrameBytes;
  request.tp_frame_nr = kBlockBytes / kFrameBytes * kBlocks;
  request.tp_retire_blk_tov = kRetireMs;
  if (setsockopt(rx_fd_, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)) != 0) {
    return failed("set up a receive ring");
  }
  void* ring = mmap(nullptr, size_t{kBlockBytes} * kBlocks, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_POPULATE, rx_fd_, 0);
  if (ring == MAP_FAILED) return failed("map the receive ring");
  ring_ = static_cast<uint8_t*>(ring);
  const int ignore = 1;  // older kernels lack it: receive looks at the packet type as well
  (void)setsockopt(rx_fd_, SOL_PACKET, PACKET_IGNORE_OUTGOING, &ignore, sizeof(ignore));
  if (promiscuous) {
    packet_mreq membership{};
    membership.mr_ifindex = ifindex;
    membership.mr_type = PACKET_MR_PROMISC;
    if (setsockopt(rx_fd_, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof(membership))) {
      return failed("turn on promiscuous mode");
    }
  }
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = ifindex;
  if (bind(tx_fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return failed("bind the sending socket");
  }
  address.sll_protocol = htons(ETH_P_ALL);
  if (bind(rx_fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return failed("bind the receiving socket");
  }
  return {};
}

void AFPacketPort::shut() {
  if (ring_ != nullptr) munmap(ring_, size_t{kBlockBytes} * kBlocks);
  ring_ = nullptr;
  frame_ = nullptr;
  for (int* fd : {&rx_fd_, &tx_fd_}) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
}

void AFPacketPort::count_kernel_drops() {
  tpacket_stats_v3 stats{};
  socklen_t length = sizeof(stats);
  if (rx_fd_ >= 0 && getsockopt(rx_fd_, SOL_PACKET, PACKET_STATISTICS, &stats, &length) == 0 &&
      stats.tp_drops > 0) {
    in.add_dropped(stats.tp_drops);
  }
}

bool AFPacketPort::open_block() {
  tpacket_hdr_v1& header = block_header(ring_, block_index_);
  if (!(__atomic_load_n(&header.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) return false;
  frames_left_ = header.num_pkts;
  frame_ = reinterpret_cast<const tpacket3_hdr*>(ring_ + size_t{block_index_} * kBlockBytes +
                                                 header.offset_to_first_pkt);
  return true;
}

void AFPacketPort::release_block() {
  const bool losing = block_header(ring_, block_index_).block_status & TP_STATUS_LOSING;
  __atomic_store_n(&block_header(ring_, block_index_).block_status, uint32_t{TP_STATUS_KERNEL},
                   __ATOMIC_RELEASE);
  block_index_ = (block_index_ + 1) % kBlocks;
  frame_ = nullptr;
  if (losing) count_kernel_drops();
}

// Copies a frame of the ring into the packet; false when it is too long.
bool AFPacketPort::take_frame(const tpacket3_hdr& frame, Packet& packet) {
  const uint8_t* data = reinterpret_cast<const uint8_t*>(&frame) + frame.tp_mac;
  const uint32_t captured = frame.tp_snaplen;
  const bool tagged = (frame.tp_status & TP_STATUS_VLAN_VALID) && captured >= kMacBytes;
  const uint32_t tag_bytes = tagged ? kTagBytes : 0;
  uint8_t* to = packet.append(captured + tag_bytes);
  if (to == nullptr) return false;
  if (tagged) {
    const uint16_t tpid = (frame.tp_status & TP_STATUS_VLAN_TPID_VALID) ? frame.hv1.tp_vlan_tpid
                                                                        : uint16_t{ETH_P_8021Q};
    const uint16_t tag[2] = {htons(tpid), htons(static_cast<uint16_t>(frame.hv1.tp_vlan_tci))};
    std::memcpy(to, data, kMacBytes);
    std::memcpy(to + kMacBytes, tag, kTagBytes);
    std::memcpy(to + kMacBytes + kTagBytes, data + kMacBytes, captured - kMacBytes);
  } else {
    std::memcpy(to, data, captured);
  }
  packet.set_time_ns(frame.tp_sec * kNsPerSecond + frame.tp_nsec);
  packet.set_wire_len(frame.tp_len > captured ? frame.tp_len + tag_bytes : 0);
  return true;
}

void AFPacketPort::receive(Context& ctx, uint32_t, Batch& batch, uint32_t max) {
  if (frame_ == nullptr && !open_block()) return;
  Batch fresh;
  const uint32_t room = ctx.alloc(fresh, std::min(max, kMaxBatch - batch.size), 0);
  uint32_t used = 0;
  while (used < room && (frame_ != nullptr || open_block())) {
    if (frames_left_ == 0) {
      release_block();
      continue;
    }
    const uint8_t* at = reinterpret_cast<const uint8_t*>(frame_);
    const auto* from =
        reinterpret_cast<const sockaddr_ll*>(at + TPACKET_ALIGN(sizeof(tpacket3_hdr)));
    if (from->sll_pkttype != PACKET_OUTGOING) {
      if (take_frame(*frame_, *fresh[used])) {
        batch.add(fresh[used++]);
      } else {
        in.add_dropped(1);
      }
    }
    frame_ = reinterpret_cast<const tpacket3_hdr*>(at + frame_->tp_next_offset);
    if (--frames_left_ == 0) release_block();
  }
  if (used < room) ctx.free(fresh.packets + used, room - used);
}

uint32_t AFPacketPort::send(Context& ctx, uint32_t, Packet* const* packets, uint32_t count) {
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
    const int n = sendmmsg(tx_fd_, messages + sent, count - sent, MSG_DONTWAIT);
    if (n > 0) {
      sent += static_cast<uint32_t>(n);
    } else if (errno == EAGAIN || errno == ENOBUFS || errno == EINTR) {
      break;
    } else {
      out.add_dropped(1);  // this one is refused: go on with the next
      ++sent;
    }
  }
  if (sent > 0) ctx.free(packets, sent);
  return sent;
}

const PortRegistration kRegistered{
    {"AFPacketPort", "af_packet_port", "sends and receives on a network interface of the kernel",
     "AFPacketPortArg", [] { return std::make_unique<AFPacketPort>(); }}};

}  // namespace
}  // namespace e2
