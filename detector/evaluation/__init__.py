"""From weights to detections to COCO metrics. May import build and what stands right of it."""
