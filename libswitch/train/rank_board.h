// What every rank of a run is doing, in a small file of the run folder (.ranks) that all ranks
// write and any of them, or a person, can read: one JSON object of fixed length a rank.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace sw {

/// What a rank's training thread is at.
enum class TrainPhase { start, data, data_of_others, step, evaluation, save, check, end };
/// "evaluation", "data of others".
const char* train_phase_name(TrainPhase phase);

struct RankState {
  int64_t rank = 0;
  std::string host;
  int64_t pid = 0;
  int64_t step = 0;  // under way, counted from 1
  TrainPhase phase = TrainPhase::start;
  bool waiting = false;    // in `collective`; else that is the last one it was in
  std::string collective;  // "all_reduce #12 of group data"
  double since = 0;        // seconds that nothing has changed, at the heartbeat
  double heartbeat = 0;    // seconds since 1970, UTC, of this record; 0: there is none
  /// 1: its watchdog found that nothing goes on; 2: and has told so.
  int64_t alarm = 0;
};

class RankBoard {
 public:
  static constexpr int64_t kRecordBytes = 512;

  /// Of rank `rank` of `ranks` in the run folder; the file is created where it is missing. Throws
  /// cannot_create.
  RankBoard(const std::filesystem::path& run, int64_t rank, int64_t ranks);
  /// Writes this rank's record with the present time as heartbeat; a disk that does not take it is
  /// passed over: the others will see an old heartbeat.
  void write(RankState state) const;
  /// All ranks' records, by rank; one that is missing or torn has no heartbeat.
  std::vector<RankState> read() const;
  /// Seconds since 1970.
  static double now();

 private:
  std::filesystem::path path_;
  int64_t rank_, ranks_;
};

/// Removes what an earlier start of the run left in the folder; before any rank has a board there.
void remove_rank_board(const std::filesystem::path& run);

/// "waits in all_reduce #12 of group data for 61 s", "computes (step) for 61 s", "silent for 61 s:
/// its process is stopped". `host` is the reader's, which knows more of processes on it. A
/// heartbeat older than `stale` seconds is none.
std::string describe_state(const RankState& state, const std::string& host, double stale);
bool is_silent(const RankState& state, double stale);

/// A table of all ranks: rank, host, step, state, last collective.
std::string rank_table(const std::vector<RankState>& states, const std::string& host, double stale);

}  // namespace sw
