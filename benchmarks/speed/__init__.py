"""Each part beside its peers."""
