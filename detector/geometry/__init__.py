"""Boxes, their coding, and padded shapes. May import runs and what stands right of it."""
