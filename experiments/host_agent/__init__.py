"""What travels to a host that is to be broken: standard library only, and it runs on Python 3.10."""
