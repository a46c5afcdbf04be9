"""Pruned checkpoints without their zeros: values and where they stand (docs/export.md has the layout)."""
