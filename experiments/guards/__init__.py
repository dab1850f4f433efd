"""Guards: conditions under which a game day stops at once, and puts everything back."""
