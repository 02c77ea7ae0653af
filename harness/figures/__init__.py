"""Figures of the paper and of results, and images with boxes. Imports verdicts, planning and what is below."""
