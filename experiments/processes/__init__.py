"""Processes of game days: the load, supervisors that stay, the stop button, what was left behind."""
