"""What a fault did to traffic and redundancy: when they were back, and what it cost."""
