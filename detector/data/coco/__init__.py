"""Data sets in COCO format: index, cache, checks, subsets, downloads."""
