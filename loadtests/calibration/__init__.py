"""What this client can measure, and how well: found out against golden endpoints, which know the truth."""
