"""COCO-format data: reading and checking it, getting it, generating it, and feeding it to the detector."""
