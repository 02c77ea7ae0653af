"""What the benchmarks say and decide is tested; how long anything takes is not."""
