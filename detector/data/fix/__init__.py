"""Mended copies of COCO roots, and what they share with the imports of other forms: files, pictures, findings."""
