"""Checks that stop a training, or tell that it went wrong. May import weights, device and what stands right of them."""
