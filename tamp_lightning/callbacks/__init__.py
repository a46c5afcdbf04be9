"""When things happen: collecting tokens and attention, allocating the budget, masking at epoch end."""
