"""From what a training came: its starts and their conditions, its loss's package. Free of torch; imports its room."""
