"""The harness's share of a training."""
