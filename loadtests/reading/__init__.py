"""The stream reader: one exchange at a time in the hub, from the bytes of a socket to a finished row."""
