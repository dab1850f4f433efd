"""``overproof load find-max``: the highest arrival rate that holds."""
