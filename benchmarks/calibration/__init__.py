"""Values of the experiments that were measured: learning rates, ranges of anchors."""
