"""The losses in two passes over the logits. May import kernels and initial_value and what stands right of them."""
