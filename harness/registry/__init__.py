"""The experiments as data: YAML files, validated and resolved. May import store, failures, folders, machine, units."""
