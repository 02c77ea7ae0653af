"""Tables, verdicts, plans and explanations, in six formats. May import status and what stands right of it."""
