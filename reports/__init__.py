"""The run record on disk, and every way to show it."""
