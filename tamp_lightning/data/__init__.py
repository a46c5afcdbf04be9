"""Readers, calibration sources and the batches made from them."""
