"""Commands on files: data, weights, bundles, detections, schemas."""
