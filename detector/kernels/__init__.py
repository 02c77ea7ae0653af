"""The detector's passes on a GPU, as Triton kernels. May import drloss.labels, and nothing else of ours."""
