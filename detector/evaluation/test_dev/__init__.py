"""COCO's evaluation server: detections out, its answer back."""
