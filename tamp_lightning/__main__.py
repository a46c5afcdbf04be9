"""`python -m tamp_lightning`."""

from tamp_lightning.cli import main

main()
