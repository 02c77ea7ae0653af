"""Loader workers: how their batches come over, and what the machine must have for it. Imports storage and errors."""
