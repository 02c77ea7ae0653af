"""How tables look where the width matters: in a terminal, in a paper's column, on a page of their own."""
