"""Slurm: clusters, job arrays, submissions, the queue. May import registry, console, code and what stands right."""
