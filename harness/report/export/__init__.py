"""What ``harness dump`` writes and ``import harness`` gives as frames: lines of plain values, and files of them."""
