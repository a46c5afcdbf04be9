"""Products with weights that stay compressed in memory: the form, its kernels, and the linear that uses them."""
