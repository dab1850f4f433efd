"""The lab: a gateway and supervised replicas of the simulated endpoint, and what steers them."""
