"""Burn-in of many nodes from one place: reach them, run them, find the part that drags the others down."""
