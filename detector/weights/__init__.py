"""Weight files of other projects and our own: read, checked against a network, loaded, written.

``read.read_weights`` tells the format from a file's content and gives every tensor our name; ``load`` puts them into a
model; ``write`` is the way back. Nothing here runs code from a file.
"""
