"""Faults: each captures what it will change, injects, verifies that it took hold, and can undo it."""
