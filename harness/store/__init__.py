"""Finished records and curves on disk. Of this project it imports detector.runs and detector.storage only."""
