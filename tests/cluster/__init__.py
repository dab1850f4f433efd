"""A real Kubernetes cluster on one machine, for tests: ``python -m tests.cluster up``; docs/cluster.md."""
