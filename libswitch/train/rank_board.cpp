#include "libswitch/train/rank_board.h"

#include <fcntl.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"

namespace sw {
namespace {

constexpr const char* kFile = ".ranks";
constexpr std::array kPhases = {"start",      "data", "data of others", "step",
                                "evaluation", "save", "check",          "end"};

std::string to_record(const RankState& s) {
  nlohmann::ordered_json json = {{"rank", s.rank},
                                 {"host", s.host.substr(0, 64)},
                                 {"pid", s.pid},
                                 {"step", s.step},
                                 {"phase", train_phase_name(s.phase)},
                                 {"waiting", s.waiting},
                                 {"collective", s.collective.substr(0, 80)},
                                 {"since", s.since},
                                 {"heartbeat", s.heartbeat},
                                 {"alarm", s.alarm}};
  std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize(static_cast<size_t>(RankBoard::kRecordBytes) - 1, ' ');
  return text + "\n";
}

RankState from_record(const std::string& text, int64_t rank) {
  RankState state;
  state.rank = rank;
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return state;
  try {
    if (json.at("rank").get<int64_t>() != rank) return state;
    state.host = json.at("host").get<std::string>();
    state.pid = json.at("pid").get<int64_t>();
    state.step = json.at("step").get<int64_t>();
    const auto phase = json.at("phase").get<std::string>();
    const auto found = std::find(kPhases.begin(), kPhases.end(), phase);
    if (found != kPhases.end()) state.phase = static_cast<TrainPhase>(found - kPhases.begin());
    state.waiting = json.at("waiting").get<bool>();
    state.collective = json.at("collective").get<std::string>();
    state.since = json.at("since").get<double>();
    state.alarm = json.at("alarm").get<int64_t>();
    state.heartbeat = json.at("heartbeat").get<double>();
  } catch (const nlohmann::json::exception&) {
    state.heartbeat = 0;
  }
  return state;
}

double age(const RankState& state) { return RankBoard::now() - state.heartbeat; }

// What this machine knows of a process on it: "its process is stopped", or nothing.
std::string process_state(int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  if (!std::getline(file, text)) return "its process is gone";
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos || name_end + 2 >= text.size()) return "";
  const char state = text[name_end + 2];
  if (state == 'T' || state == 't') return "its process is stopped";
  if (state == 'Z' || state == 'X') return "its process is dead";
  if (state == 'D') return "its process waits for a disk";
  return "";
}

}  // namespace

const char* train_phase_name(TrainPhase phase) { return kPhases[static_cast<size_t>(phase)]; }

double RankBoard::now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

RankBoard::RankBoard(const std::filesystem::path& run, int64_t rank, int64_t ranks)
    : path_(run / kFile), rank_(rank), ranks_(ranks) {
  const FileDescriptor fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  SW_CHECK(fd.get() >= 0, cannot_create, "{}: cannot create: {}", path_.string(),
           std::strerror(errno));
}

void RankBoard::write(RankState state) const {
  state.rank = rank_;
  state.heartbeat = now();
  const std::string record = to_record(state);
  // One write: a reader sees the old record or the new one, or no JSON. Opened for each, because
  // network file systems pass on what is written when it is closed, and look anew when it is
  // opened.
  const FileDescriptor fd(::open(path_.c_str(), O_WRONLY | O_CLOEXEC));
  [[maybe_unused]] const ssize_t written =
      ::pwrite(fd.get(), record.data(), record.size(), rank_ * kRecordBytes);
}

std::vector<RankState> RankBoard::read() const {
  std::string text(static_cast<size_t>(ranks_ * kRecordBytes), '\0');
  const FileDescriptor fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  const ssize_t got = ::pread(fd.get(), text.data(), text.size(), 0);
  text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  std::vector<RankState> states;
  for (int64_t rank = 0; rank < ranks_; ++rank) {
    const auto begin = static_cast<size_t>(rank * kRecordBytes);
    states.push_back(from_record(
        begin < text.size() ? text.substr(begin, static_cast<size_t>(kRecordBytes)) : "", rank));
  }
  return states;
}

void remove_rank_board(const std::filesystem::path& run) {
  std::error_code error;
  std::filesystem::remove(run / kFile, error);
  for (const auto& entry : std::filesystem::directory_iterator(run, error)) {
    if (entry.path().filename().string().starts_with("stack-rank-")) {
      std::filesystem::remove(entry.path(), error);
    }
  }
}

bool is_silent(const RankState& state, double stale) {
  return state.heartbeat == 0 || age(state) > stale;
}

std::string describe_state(const RankState& state, const std::string& host, double stale) {
  if (state.heartbeat == 0) return "never reported";
  if (is_silent(state, stale)) {
    const std::string process = state.host == host ? process_state(state.pid) : "";
    return fmt::format("silent for {:.0f} s{}", age(state),
                       process.empty() ? std::string() : ": " + process);
  }
  if (state.waiting) return fmt::format("waits in {} for {:.0f} s", state.collective, state.since);
  if (state.phase == TrainPhase::data) return fmt::format("has no data for {:.0f} s", state.since);
  return fmt::format("in no collective ({}) for {:.0f} s", train_phase_name(state.phase),
                     state.since);
}

std::string rank_table(const std::vector<RankState>& states, const std::string& host,
                       double stale) {
  size_t width = 4;
  for (const RankState& s : states) width = std::max(width, s.host.size());
  std::string text =
      fmt::format("{:>5}  {:<{}}  {:>8}  {:>8}  {}", "rank", "host", width, "pid", "step", "state");
  for (const RankState& s : states) {
    std::string state = describe_state(s, host, stale);
    if (!s.waiting && !s.collective.empty()) state += "; last collective " + s.collective;
    if (s.waiting && is_silent(s, stale)) state += "; was in " + s.collective;
    text += fmt::format("\n{:>5}  {:<{}}  {:>8}  {:>8}  {}", s.rank, s.host, width, s.pid, s.step,
                        state);
  }
  return text;
}

}  // namespace sw
