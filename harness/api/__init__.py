"""What ``import harness`` offers to scripts and notebooks, on pandas. May import every room but cli."""
