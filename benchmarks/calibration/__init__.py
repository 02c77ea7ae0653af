"""Measures values that the experiments hold: learning rates, ranges of anchors."""
