"""Readers of the public benchmark formats: a source, such as a hub id or a local file, becomes checked items."""
