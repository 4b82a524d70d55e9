// SPDX-License-Identifier: BSD-3-Clause
// Traffic classes on a worker that polls: shares of cycles hold whatever comes in.
//
// Below a weighted_fair class by cycles (the group; with several on the way up, the highest) an
// idle run is charged like any other, and its leaf stays: a share that finds no packets is spent on
// looking for them, not given to the siblings. Once every child has been found idle in a row, the
// group is silent: its leaves step aside like those of other workers, so that a class of lower
// priority, or sleep, gets its turn. Looking around in a silence costs no pass, and a child that
// comes back from it has the pass that it left with.
//
// The way up leads through weighted_fair, round_robin and rate_limit classes: such a child is idle
// once all that can run below it is. It ends at a priority class, where a leaf has to step aside
// for the next priority. Each class on the way only counts, so a run costs what the depth is.
#include "engine/traffic_class.h"

namespace e2 {

// Whether all that can run here has been found idle since there was work.
bool TrafficClass::note_idle(const TrafficClass* child) {
  if (policy_ == Policy::kRateLimit) return true;
  if (policy_ == Policy::kRoundRobin) return ++silent_ >= children_.size();
  if (ready_.empty() || children_[ready_[0]].tc != child) return false;
  Child& front = children_[ready_[0]];  // the one that was picked
  if (front.silent_in != silence_) {
    front.silent_in = silence_;
    ++silent_;
  }
  return silent_ >= ready_.size();
}

void TrafficClass::end_silence() {
  if (silent_ == 0) return;
  silent_ = 0;
  ++silence_;
}

void TrafficClass::account_poll(const Usage& usage, uint64_t now_tsc) {
  TrafficClass* group = nullptr;
  bool group_silent = false;
  bool silent = true;
  const TrafficClass* child = this;
  for (TrafficClass* tc = parent_; tc != nullptr && tc->policy_ != Policy::kPriority;
       tc = tc->parent_) {
    silent = silent && tc->note_idle(child);
    if (tc->policy_ == Policy::kWeightedFair && tc->resource_ == Resource::kCycle) {
      group = tc;
      group_silent = silent;
    }
    child = tc;
  }
  if (group == nullptr) {
    account(usage, now_tsc);
    back_off(now_tsc);
  } else if (group_silent) {
    for (TrafficClass* tc = this; tc != group; tc = tc->parent_) tc->count(usage, now_tsc);
    group->account(usage, now_tsc);
    back_off(now_tsc);
  } else {
    account(usage, now_tsc);
  }
}

void TrafficClass::account_work(const Usage& usage, uint64_t now_tsc) {
  for (TrafficClass* tc = parent_; tc != nullptr; tc = tc->parent_) tc->end_silence();
  account(usage, now_tsc);
  found_work();
}

}  // namespace e2
