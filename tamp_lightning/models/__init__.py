"""Models that need more than `from_pretrained`: the test beds."""
