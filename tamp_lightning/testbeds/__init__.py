"""Small real models and data sets that need no hub."""
