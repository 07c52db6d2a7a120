#include "libswitch/base/fault.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/base/rng.h"

namespace sw {
namespace {

constexpr std::array kKinds = {"kill",           "segv",    "stop",   "hang",        "nan",
                               "bitflip-weight", "slow-x2", "enospc", "short-write", "eio"};
constexpr std::array kSites = {"step",       "data",        "backward",
                               "eval",       "ckpt.stage",  "ckpt.write",
                               "ckpt.fsync", "ckpt.rename", "ckpt.commit"};
constexpr const char* kForm =
    "RANK:STEP:KIND[:SITE] (RANK and STEP a number or *), several separated by commas, or "
    "random:SEED:KIND[:SITE]";

// A random fault comes within so many steps and visits of the start.
constexpr uint64_t kRandomSteps = 5, kRandomVisits = 3;
constexpr int64_t kRandomPatience = 2;

template <class Names>
std::string joined(const Names& names) {
  std::string text;
  for (const char* name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

std::optional<int64_t> number(const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || at != end || value < 0) return {};
  return value;
}

template <class Enum, class Names>
Enum one_of(const Names& names, const std::string& word, const char* what) {
  const auto found =
      std::find_if(names.begin(), names.end(), [&](const char* name) { return word == name; });
  SW_CHECK(found != names.end(), usage, "SW_FAULT: unknown {} '{}'{}; expected one of {}", what,
           word, nearest_hint(word, names), joined(names));
  return static_cast<Enum>(found - names.begin());
}

// The sites that know what to do for a kind; all sites can end or hold up the process.
std::vector<FaultSite> sites_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::nan: return {FaultSite::step, FaultSite::backward};
    case FaultKind::bitflip_weight:
    case FaultKind::slow_x2: return {FaultSite::step};
    case FaultKind::short_write: return {FaultSite::ckpt_write};
    case FaultKind::enospc:
    case FaultKind::eio:
      return {FaultSite::ckpt_write, FaultSite::ckpt_stage, FaultSite::ckpt_fsync,
              FaultSite::ckpt_rename};
    default: break;
  }
  std::vector<FaultSite> all;
  for (size_t i = 0; i < kSites.size(); ++i) all.push_back(static_cast<FaultSite>(i));
  return all;
}

void check_site(const FaultSpec& spec) {
  const std::vector<FaultSite> sites = sites_of(spec.kind);
  if (std::find(sites.begin(), sites.end(), spec.site) != sites.end()) return;
  std::vector<const char*> names;
  for (const FaultSite site : sites) names.push_back(fault_site_name(site));
  fail(ErrorKind::usage, "SW_FAULT: {} cannot happen at {}; expected one of {}",
       fault_kind_name(spec.kind), fault_site_name(spec.site), joined(names));
}

FaultSpec parse_random(const std::vector<std::string>& parts, int64_t ranks) {
  const auto seed = number(parts[1]);
  SW_CHECK(seed, usage, "SW_FAULT: the seed '{}' is no number; expected {}", parts[1], kForm);
  RngStream draws(rng_key(static_cast<uint64_t>(*seed), RngPurpose::test, "SW_FAULT"));
  FaultSpec spec;
  spec.random = true;
  spec.kind = one_of<FaultKind>(kKinds, parts[2], "kind");
  spec.rank = static_cast<int64_t>(draws.below(static_cast<uint64_t>(ranks)));
  spec.first_step = static_cast<int64_t>(draws.below(kRandomSteps));
  spec.visit = 1 + static_cast<int64_t>(draws.below(kRandomVisits));
  const std::vector<FaultSite> sites = sites_of(spec.kind);
  spec.anywhere = parts.size() == 3;
  spec.site = parts.size() > 3 ? one_of<FaultSite>(kSites, parts[3], "site")
                               : sites[draws.below(sites.size())];
  return spec;
}

int64_t number_or_any(const std::string& text, const char* what) {
  if (text == "*") return FaultSpec::kAny;
  const auto value = number(text);
  SW_CHECK(value, usage, "SW_FAULT: {} '{}' is neither a number nor *; expected {}", what, text,
           kForm);
  return *value;
}

FaultSpec parse_fault(const std::string& text, int64_t ranks) {
  const std::vector<std::string> parts = split(text, ':');
  SW_CHECK(parts.size() == 3 || parts.size() == 4, usage, "SW_FAULT: '{}': expected {}", text,
           kForm);
  FaultSpec spec;
  if (parts[0] == "random") {
    spec = parse_random(parts, ranks);
  } else {
    spec.rank = number_or_any(parts[0], "rank");
    spec.step = number_or_any(parts[1], "step");
    spec.kind = one_of<FaultKind>(kKinds, parts[2], "kind");
    spec.site = parts.size() > 3 ? one_of<FaultSite>(kSites, parts[3], "site")
                                 : sites_of(spec.kind).front();
    SW_CHECK(spec.rank < ranks, usage,
             "SW_FAULT: rank {} of a job of {} ranks; expected at most {}", spec.rank, ranks,
             ranks - 1);
  }
  check_site(spec);
  return spec;
}

}  // namespace

namespace detail {
std::atomic<FaultPlan*> fault_plan{nullptr};
}

const char* fault_kind_name(FaultKind kind) { return kKinds[static_cast<size_t>(kind)]; }
const char* fault_site_name(FaultSite site) { return kSites[static_cast<size_t>(site)]; }

std::string fault_help() {
  return fmt::format(
      "Faults on purpose, to see what a run does then: {}. "
      "RANK is a rank of the job, STEP counts from 1 as the log does. KIND is one of {}. SITE is "
      "one "
      "of {}; left out, it is step, or ckpt.write for failing system calls. kill, segv, stop and "
      "hang work at every site; the others where they mean something. With random, rank, step and "
      "site follow from SEED, so that a loop over seeds tries them all.",
      kForm, joined(kKinds), joined(kSites));
}

std::vector<FaultSpec> parse_faults(const std::string& text, int64_t ranks) {
  std::vector<FaultSpec> specs;
  for (const std::string& part : split(text, ',')) specs.push_back(parse_fault(part, ranks));
  return specs;
}

FaultPlan::FaultPlan(std::vector<FaultSpec> specs, int64_t rank) : specs_(std::move(specs)) {
  std::erase_if(specs_, [&](const FaultSpec& spec) {
    return spec.rank != FaultSpec::kAny && spec.rank != rank;
  });
}

void FaultPlan::set_step(int64_t step) {
  step_ = step;
  int64_t unset = FaultSpec::kAny;
  start_.compare_exchange_strong(unset, step);
}

bool FaultPlan::takes_place(FaultSpec& spec, FaultSite site, int64_t step) {
  if (!spec.random) {
    return spec.site == site && (spec.step == FaultSpec::kAny || spec.step == step);
  }
  const int64_t due = start_ + spec.first_step;
  if (spec.visit <= 0 || step < due) return false;
  const std::vector<FaultSite> sites = sites_of(spec.kind);
  const bool late = spec.anywhere && step > due + kRandomPatience &&
                    std::find(sites.begin(), sites.end(), site) != sites.end();
  if (late) spec.visit = 1;
  return (late || spec.site == site) && --spec.visit == 0;
}

FaultEffect FaultPlan::visit(FaultSite site, int64_t step) {
  if (step == FaultSpec::kAny) step = step_;
  FaultKind kind{};
  bool tell = false;
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(specs_.begin(), specs_.end(), [&](FaultSpec& spec) {
      return spec.kind != FaultKind::slow_x2 && takes_place(spec, site, step);
    });
    if (found == specs_.end()) return FaultEffect::none;
    kind = found->kind;
    tell = std::exchange(found->told_step, step) != step;
    // A process that was continued is not stopped again; a bit does not flip back.
    if (kind == FaultKind::stop || kind == FaultKind::bitflip_weight) specs_.erase(found);
  }
  if (tell) {
    // An error, so that every rank's log shows it.
    log::error("SW_FAULT: {} at {} of step {}", fault_kind_name(kind), fault_site_name(site), step);
  }
  switch (kind) {
    case FaultKind::kill: ::kill(::getpid(), SIGKILL); break;
    case FaultKind::segv:
      std::signal(SIGSEGV, SIG_DFL);
      ::kill(::getpid(), SIGSEGV);
      break;
    case FaultKind::stop: ::kill(::getpid(), SIGSTOP); return FaultEffect::none;
    case FaultKind::nan: return FaultEffect::nan;
    case FaultKind::bitflip_weight: return FaultEffect::bitflip_weight;
    case FaultKind::enospc: return FaultEffect::enospc;
    case FaultKind::short_write: return FaultEffect::short_write;
    case FaultKind::eio: return FaultEffect::eio;
    case FaultKind::hang:
    case FaultKind::slow_x2: break;
  }
  for (;;) ::pause();
}

bool FaultPlan::slow() {
  const int64_t step = step_;
  const std::lock_guard lock(mutex_);
  return std::any_of(specs_.begin(), specs_.end(), [&](const FaultSpec& spec) {
    const int64_t from = spec.random ? start_ + spec.first_step : spec.step;
    return spec.kind == FaultKind::slow_x2 && step >= from;
  });
}

void configure_faults(int64_t rank, int64_t ranks) {
  // Plans stay for the life of the process: sites of other threads may hold one.
  static std::vector<std::unique_ptr<FaultPlan>> plans;
  const char* text = std::getenv("SW_FAULT");
  if (text == nullptr || *text == 0) {
    detail::fault_plan = nullptr;
    return;
  }
  plans.push_back(std::make_unique<FaultPlan>(parse_faults(text, ranks), rank));
  detail::fault_plan = plans.back().get();
  if (rank == 0) log::warn("SW_FAULT={}: faults will happen on purpose", text);
}

int fault_errno(FaultEffect effect) {
  switch (effect) {
    case FaultEffect::enospc: return ENOSPC;
    case FaultEffect::eio: return EIO;
    default: return 0;
  }
}

}  // namespace sw
