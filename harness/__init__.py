"""The harness: from the paper's tables as data to trainings, records, tables and verdicts."""
