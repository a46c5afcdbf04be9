"""Recipes: typed sections, and what is checked before they are built."""
