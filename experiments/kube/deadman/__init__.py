"""Who undoes on a cluster when we are gone: the mirror of the ledger there, two leases, and the dead-man."""
