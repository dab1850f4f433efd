"""Faults on hosts, from our side: whom they hit, how a host is reached, what the ledger keeps of them."""
