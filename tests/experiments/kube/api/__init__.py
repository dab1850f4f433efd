"""Tests of what is in experiments/kube/api."""
