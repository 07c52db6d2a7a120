// Requests from outside to a running training: signals, and files in the run folder.
//
//   USR1, TERM, INT, file STOP    commit a checkpoint and end with exit code 75
//   USR2, file SAVE               commit a checkpoint and go on
//   INT a second time             end at once with exit code 130
//   HUP                           open the log file anew
#pragma once

#include <filesystem>
#include <string>

#include "libswitch/base/timer.h"

namespace sw {

class OutsideRequests {
 public:
  /// Installs the handlers, which only set flags, and watches `run_folder` for the files (empty: no
  /// files). One object at a time. A HUP that the parent ignores stays ignored.
  explicit OutsideRequests(std::filesystem::path run_folder = {});
  /// While on, what would ask for a stop ends the process at once: nothing is lost before training
  /// has begun. USR1 and TERM with exit code 75, INT with 130.
  void stop_at_once(bool on);
  /// Puts the previous handlers back.
  ~OutsideRequests();
  OutsideRequests(const OutsideRequests&) = delete;
  OutsideRequests& operator=(const OutsideRequests&) = delete;

  /// Whether the run is to end; stays true. Looks for files a few times a second at most.
  bool stop();
  /// Whether a checkpoint was asked for since the last call.
  bool take_save();
  bool take_reopen();
  /// Who asked for the stop: "SIGUSR1", "the file STOP".
  const std::string& reason() const { return reason_; }

 private:
  void look_for_files();
  bool take_file(const char* name);

  std::filesystem::path folder_;
  Timer since_look_;
  bool looked_ = false;
  bool stop_ = false, save_ = false;
  std::string reason_;
};

}  // namespace sw
