// Stands in for the CUDA backend in builds without it.
