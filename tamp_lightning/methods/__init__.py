"""The four choices of a pruning method: tokens, allocation, solver, pattern; names and constants only."""
