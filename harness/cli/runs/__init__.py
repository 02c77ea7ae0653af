"""Commands on runs: plan, run, status, logs, cancel, clean, trace, doctor."""
