"""Checkpoints on disk: headers, names, facts, and writing shards."""
