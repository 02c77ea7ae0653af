"""The state of each run, by its folder and the queue, and its logs. May import planning and what stands right of it."""
