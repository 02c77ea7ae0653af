"""Checks that stop a training that cannot be right. May import weights, device and what stands right of them."""
