"""Ways to start a program on a host and to hold its two streams."""
