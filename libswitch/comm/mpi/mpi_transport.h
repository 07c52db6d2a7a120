// Messages over MPI. The headers of this folder do without mpi.h.
#pragma once

#include <cstdint>
#include <memory>

#include "libswitch/comm/transport.h"

namespace sw {

/// Throws device "rank R (host): MPI_Isend: text of the error" unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* call);

/// Whether MPI is initialised and not yet finalised.
bool mpi_alive();

/// Over a communicator of its own, given by its Fortran handle (MPI_Comm_c2f) and freed with the
/// transport.
std::unique_ptr<Transport> make_mpi_transport(int communicator);

/// Bytes of the largest MPI message, 1 GiB; longer ones are sent in pieces. For tests: equal on
/// all ranks, and set while nothing is under way.
void set_largest_mpi_message(int64_t bytes);

}  // namespace sw
