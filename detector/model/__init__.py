"""RetinaNet: backbone, heads, anchors, matching, criterion, detections.

May import geometry, drloss.labels and drloss.numba_cache.
"""
