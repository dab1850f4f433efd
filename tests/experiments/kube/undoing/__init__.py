"""Tests of what is in experiments/kube/undoing."""
