"""Speed, faults and overhead, beside peers in the same run. May import everything but tests."""
