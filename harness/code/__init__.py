"""Which code runs, and copies of it for queued runs. May import store, failures, folders, machine, units."""
