"""Commands on runs: plan, run, status, logs, cancel, doctor."""
