"""The vocabulary, the sensors, the promises (SLOs) and every rule that two jobs share."""
