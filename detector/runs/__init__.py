"""A run as data and as a folder: job, assignment, status, record. Free of torch; may import storage."""
