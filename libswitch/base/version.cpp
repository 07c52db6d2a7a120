// All of these definitions are given to this file alone, so that a commit recompiles nothing else.
#include "libswitch/base/version.h"

namespace sw {

const char* version() { return SW_VERSION; }

const std::vector<std::pair<std::string, std::string>>& build_info() {
  static const std::vector<std::pair<std::string, std::string>> info = {
      {"version", SW_VERSION},       {"commit", SW_COMMIT},
      {"compiler", SW_COMPILER},     {"build_type", SW_BUILD_TYPE},
      {"arch", SW_BUILD_ARCH},       {"hdf5", SW_HDF5_VERSION},
      {"onednn", SW_ONEDNN_VERSION}, {"sentencepiece", SW_SENTENCEPIECE_VERSION},
      {"zstd", SW_ZSTD_VERSION},     {"mpi", SW_MPI_VERSION},
      {"cuda", SW_CUDA_VERSION},
  };
  return info;
}

}  // namespace sw
