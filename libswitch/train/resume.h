// Going on with a run: from which checkpoint, and with which options.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "libswitch/base/options.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/run_directory.h"

namespace sw {

/// The checkpoint that --resume `choice` means. auto: the newest whole one of the run folder, or
/// none. never: none; usage error when the folder holds checkpoints, which would be overwritten. A
/// path starts the run from that checkpoint (a file or another run folder); once the run has
/// checkpoints of its own, the same command line goes on from those.
std::optional<std::filesystem::path> resume_point(const RunDirectory& run,
                                                  const std::string& choice);

/// Gives every option that nobody set (by preset, file, environment or flag) the value that the run
/// was started with, and compares the others. `declare` declares the tool's options in a registry,
/// bound to fields that outlive the call. Options of this machine and of the run's length may
/// change freely; rates, dropout and loss weights with `allow_changes`; anything else is another
/// run: usage error.
void adopt_options(OptionRegistry& registry, const CheckpointReader& reader,
                   const std::function<void(OptionRegistry&)>& declare, bool allow_changes);

}  // namespace sw
