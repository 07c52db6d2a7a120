// Calls of CUDA and NCCL with errors as exceptions. Private to this folder.
#pragma once

namespace sw {

/// Throw device "call: text" unless `code` is cudaSuccess, ncclSuccess. The codes are the
/// libraries' enumerations.
void check_cuda(int code, const char* call);
void check_nccl(int code, const char* call);

}  // namespace sw
