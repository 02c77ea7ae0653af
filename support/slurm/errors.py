"""What goes wrong with a cluster of tests."""

from __future__ import annotations


class SlurmDidNotStart(Exception):
    """Slurm did not start. The first line of the message says why; the rest is what the daemons printed."""
