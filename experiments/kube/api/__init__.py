"""Our own way to the API of a cluster: a relay that can slow it down or cut it, and what the day then saw."""
