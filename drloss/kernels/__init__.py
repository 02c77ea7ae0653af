"""Compiled loops: numba on CPUs, Triton on GPUs. May import inputs, surrogates and the rooms below them."""
