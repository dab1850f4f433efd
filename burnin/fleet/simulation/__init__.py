"""A fleet that exists only as numbers: for rehearsal, for teaching, and to measure the isolation against."""
