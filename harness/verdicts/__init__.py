"""Statistics, and verdicts on cells and claims. May import registry and what stands right of it."""
