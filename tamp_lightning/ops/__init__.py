"""Pure tensor functions of pruning: torch only, no models, no Lightning, no state."""
