"""The dispatcher and what it asks: what is sent when and where, and when to stop."""
