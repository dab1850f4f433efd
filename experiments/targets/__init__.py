"""What a game day may hit: what each kind of target has to offer, and the one table of the kinds."""
