"""Weight files of other projects, described and evaluated. May import registry and what stands right."""
