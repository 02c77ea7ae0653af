"""Where a number comes from: what a table says of its records, each record in full, and the list of all of them."""
