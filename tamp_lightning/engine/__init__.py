"""The run: a LightningModule over a stream of blocks, and what is done before and after it."""
