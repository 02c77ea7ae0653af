"""The training loop, its state, schedule and metrics. May import build, sanity and what stands right of them."""
