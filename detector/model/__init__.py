"""RetinaNet: backbone, heads, anchors, matching, criterion, detections. May import geometry and drloss' labels."""
