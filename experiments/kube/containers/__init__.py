"""Containers killed and hung, by a hand: a pod of ours on their node."""
