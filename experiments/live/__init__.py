"""A game day while it runs: its timeline, its record as it grows, and what people and Prometheus see."""
