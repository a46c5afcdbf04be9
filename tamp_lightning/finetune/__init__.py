"""Training the weights that pruning left."""
