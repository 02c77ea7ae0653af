"""Looks for evidence that cannot be trusted. May import planning and what stands right of it."""
