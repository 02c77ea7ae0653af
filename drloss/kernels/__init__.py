"""Compiled loops: numba on CPUs, Triton on GPUs. May import inputs and surrogates and what stands right of them."""
