"""`python -m tamp_lightning`."""

from tamp_lightning.cli.main import main

main()
