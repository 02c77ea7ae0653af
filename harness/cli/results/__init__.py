"""Commands on results: tables, verdicts, explanations."""
