"""How a change to an object of a cluster is marked as ours, and taken back."""
