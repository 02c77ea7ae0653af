"""One run from start to record, in each of its processes. May import every other room; only run.py imports torch."""
