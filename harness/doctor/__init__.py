"""Whether this machine, or a cluster, has what runs need. May import report and what stands right of it."""
