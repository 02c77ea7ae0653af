"""Boxes on images: what is right on an image, what anchors match, and how it is drawn. Drawing is free of torch."""
