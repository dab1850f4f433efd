"""What a cluster looks like, before, while and after it is hit: looks at it, rows of it, probes' answers."""
