// The yardstick of operations that move more than they compute.
#pragma once

namespace sw::kernels::cpu {

/// The best rate, in bytes per nanosecond (GB/s), at which num_threads() threads stream arrays far
/// larger than the caches through a multiply-add: two read, one of them written. Repeats for about
/// `seconds`.
double measure_memory_rate(double seconds = 0.1);

}  // namespace sw::kernels::cpu
