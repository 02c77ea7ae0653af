"""Runs on this machine, and what every run is told. May import status and what stands right of it."""
