"""Rules over the record of a load: pure functions, and what reads their evidence."""
