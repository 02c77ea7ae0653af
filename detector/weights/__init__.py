"""Weight files of other projects and our own: read, checked against a network, loaded, written.

``reading.read_weights`` tells the format from a file's content and gives every tensor our name; ``loading`` puts them
into a model; ``writing`` is the way back. Nothing here runs code from a file.
"""
