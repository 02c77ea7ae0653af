"""New experiment files and packages from templates. May import registry, console, folders, machine and below."""
