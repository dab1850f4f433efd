"""Nodes: lost, given up, under pressure, without their device plugin; and the platform's clocks for that."""
