"""Chaos Toolkit's part of a game day: in processes of its own, with our record around it."""
