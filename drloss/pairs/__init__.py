"""All pairs of a positive and a negative, none of them in memory. May import kernels and the rooms below it."""
