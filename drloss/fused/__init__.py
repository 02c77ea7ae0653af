"""The losses in two passes over the logits. May import kernels and the rooms below it."""
