"""Tests of what the benchmarks print and decide; no test looks at a time."""
