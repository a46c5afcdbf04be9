"""What other libraries do not promise, in one place."""
