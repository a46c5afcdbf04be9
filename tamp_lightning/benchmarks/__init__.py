"""A benchmark is reader + prompt + answer rule + metric: the one place where data and metrics meet."""
