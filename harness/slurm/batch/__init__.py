"""The batch script: how it is written, and what it asks after its processes failed."""
