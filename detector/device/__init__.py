"""Precision, compilation, the world of processes. May import data, model and what stands right of them."""
