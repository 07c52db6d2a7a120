// Root attributes, /meta, /train and /telemetry of a checkpoint. Private to io/.
#pragma once

#include <string>

#include "libswitch/io/checkpoint_schema.h"
#include "libswitch/io/hdf5_file.h"

namespace sw {

/// Throws usage for what the format cannot hold: a zero byte in a text, a reserved attribute name.
void check_meta(const CheckpointMeta& meta);

void write_meta(hdf5::File& file, const CheckpointMeta& meta);
void write_telemetry(hdf5::File& file, const Telemetry& telemetry);
void write_digest(hdf5::File& file, const std::string& digest);

/// Throws corrupt unless the file says it is a checkpoint of a version known here.
void check_format(const hdf5::File& file);
CheckpointMeta read_meta(const hdf5::File& file);
Telemetry read_telemetry(const hdf5::File& file);
std::string read_digest(const hdf5::File& file);

}  // namespace sw
