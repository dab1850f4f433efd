"""What of a cluster an action hits, whether it may, and the state before; nothing is touched."""
