"""Images of data sets and runs with boxes: which to show, and how. Imports what the room ``figures`` does."""
