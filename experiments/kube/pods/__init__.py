"""Pods and the workloads that they belong to: what they are, how they change, how they are evicted."""
