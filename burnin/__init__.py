"""Stress hardware, collect readings, judge them."""
