"""What travels to a node and runs there on Python 3.10: standard library, pynvml, torch."""
