"""Progress on terminals. May import store, failures, folders, machine, units."""
