"""Job arrays: scripts, submission, queue. May import registry, console, code and what stands right of them."""
