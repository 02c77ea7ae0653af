"""What tests and benchmarks share. Imports neither; not in the wheel."""
