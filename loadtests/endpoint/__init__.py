"""The built-in simulated inference endpoint."""
