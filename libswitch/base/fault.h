// Faults on purpose, so that tests and users can see what a run does when a process dies, hangs,
// computes nonsense or meets a full disk.
//
//   SW_FAULT=RANK:STEP:KIND[:SITE][,...]     RANK and STEP are numbers or *
//   SW_FAULT=random:SEED:KIND[:SITE]         rank, step and, where not given, site follow from SEED
//
// STEP counts from 1 as the log does: the step being computed, or the last one done where a site
// lies between steps (eval, ckpt.*). A fault that ends or holds up a process happens at the first
// visit of the site in that step; nan, enospc, eio and short-write at every visit; slow-x2 from
// that step on. Always compiled in; a site costs a comparison with null while the variable is
// unset.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace sw {

enum class FaultKind {
  kill,            // SIGKILL
  segv,            // SIGSEGV
  stop,            // SIGSTOP
  hang,            // the site never returns
  nan,             // the site's result becomes not-a-number
  bitflip_weight,  // one bit of a weight flips
  slow_x2,         // the rank's steps take twice as long
  enospc,          // system calls of the site fail: no space left
  short_write,     // writes take half of what they are given
  eio,             // system calls of the site fail: I/O error
};

enum class FaultSite {
  step,         // before forward
  data,         // before a batch is made
  backward,     // before backward
  eval,         // before a batch of an evaluation
  ckpt_stage,   // before a save takes disk space
  ckpt_write,   // before a write of tensor bytes
  ckpt_fsync,   // before the file is synced
  ckpt_rename,  // before the file gets its name
  ckpt_commit,  // after that, before the folder is synced and links are set
};

/// "bitflip-weight", "ckpt.write": as in SW_FAULT.
const char* fault_kind_name(FaultKind kind);
const char* fault_site_name(FaultSite site);

/// What manuals say of SW_FAULT.
std::string fault_help();

/// What a visited site has to do by itself.
enum class FaultEffect { none, nan, bitflip_weight, enospc, short_write, eio };

/// One entry of SW_FAULT.
struct FaultSpec {
  static constexpr int64_t kAny = -1;
  int64_t rank = kAny, step = kAny;
  FaultKind kind = FaultKind::kill;
  FaultSite site = FaultSite::step;
  // Of the random form: the fault comes at visit number `visit` (from 1) of the site in steps from
  // `first_step` on, counted from the first step of the process; unless the site was given, at
  // another one when it is not reached soon.
  bool random = false, anywhere = false;
  int64_t first_step = 0, visit = 1;
  int64_t told_step = kAny;  // of the latest line of the log
};

/// Reads SW_FAULT's text for a job of `ranks` ranks. Throws usage, saying what is expected.
std::vector<FaultSpec> parse_faults(const std::string& text, int64_t ranks);

/// The faults of one process.
class FaultPlan {
 public:
  FaultPlan(std::vector<FaultSpec> specs, int64_t rank);

  /// The step that visits belong to from now on.
  void set_step(int64_t step);
  /// Called when a site is reached, by any thread; `step` where it is not the one set. Does not
  /// return from kill, segv and hang, and from stop only when the process is continued.
  FaultEffect visit(FaultSite site, int64_t step = FaultSpec::kAny);
  /// Whether this rank's steps are to take twice as long now.
  bool slow();

 private:
  bool takes_place(FaultSpec& spec, FaultSite site, int64_t step);

  std::mutex mutex_;
  std::vector<FaultSpec> specs_;  // of this rank
  std::atomic<int64_t> step_{FaultSpec::kAny}, start_{FaultSpec::kAny};
};

namespace detail {
extern std::atomic<FaultPlan*> fault_plan;  // null: no faults
}

/// Reads SW_FAULT; this process is `rank` of `ranks`. Throws usage. With an empty or unset variable
/// the process has no faults.
void configure_faults(int64_t rank, int64_t ranks);

// For sites. Nothing happens unless SW_FAULT asks for it.
inline FaultPlan* active_faults() { return detail::fault_plan.load(std::memory_order_acquire); }
inline FaultEffect fault_at(FaultSite site, int64_t step = FaultSpec::kAny) {
  FaultPlan* plan = active_faults();
  return plan == nullptr ? FaultEffect::none : plan->visit(site, step);
}
inline void set_fault_step(int64_t step) {
  if (FaultPlan* plan = active_faults()) plan->set_step(step);
}
/// For system calls: 0, or the errno that the call is to fail with.
int fault_errno(FaultEffect effect);

}  // namespace sw
