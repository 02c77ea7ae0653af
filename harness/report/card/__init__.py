"""Model cards of trained runs: what a person must know of weights before using them."""
