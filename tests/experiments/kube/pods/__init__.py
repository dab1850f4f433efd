"""Tests of what is in experiments/kube/pods."""
