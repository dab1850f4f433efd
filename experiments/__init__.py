"""Faults and their undo, game days, the experiment catalogue and the lab."""
