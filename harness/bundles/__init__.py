"""Records and weights in one file, from one machine to another. May import status and what stands right of it."""
