"""Runs, on this machine or handed to Slurm, and what each is told. May import status and the rooms right of it."""
