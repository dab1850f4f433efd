"""Faults by actions that are not ours, as an experiment declares them."""
