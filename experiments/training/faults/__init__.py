"""Faults on a training job: each captures what it will change, injects, verifies, and can undo."""
