"""Finished records on disk. Of ours it imports detector.runs and detector.storage only."""
