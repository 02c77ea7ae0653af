"""The report: one page that opens from disk. Imports what the room ``report`` does, and ``figures``."""
