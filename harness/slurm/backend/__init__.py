"""Slurm itself: its programs, what its queue last said, and the one object that the rest calls."""
