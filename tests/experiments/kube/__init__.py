"""Tests of faults on Kubernetes that need no cluster."""
