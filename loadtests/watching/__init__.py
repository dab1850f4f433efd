"""What is looked at beside the load while it runs: the server's metrics, its replicas, our own page."""
