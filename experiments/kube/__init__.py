"""Faults on a Kubernetes cluster: chosen, captured, injected, seen and undone through its API."""
