"""What several processes share, add and tell each other."""
