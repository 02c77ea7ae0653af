"""Real Slurms on this machine for tests and benchmarks: what they are, their daemons, their accounts."""
