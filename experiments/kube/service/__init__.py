"""The service to rehearse on, put onto a cluster and removed."""
