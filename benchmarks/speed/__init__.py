"""How long each part takes, beside its peers."""
