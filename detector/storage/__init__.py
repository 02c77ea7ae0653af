"""Files on disks that fail: atomic writes, locks, retries, downloads. Free of torch; may import errors."""
