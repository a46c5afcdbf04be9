"""Warnings that are not shown, and those that are."""

import warnings

import pytest

from tamp_lightning.compat.known_warnings import without_known_warnings


def test_known_ones_are_silent_inside_and_others_are_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with without_known_warnings():
            warnings.warn("The dataloader does not have many workers which may be a bottleneck", stacklevel=1)
            warnings.warn("a LeafSpec of torch", FutureWarning, stacklevel=1)
            with pytest.raises(UserWarning, match="something else"):
                warnings.warn("something else", stacklevel=1)
            with pytest.raises(FutureWarning):
                warnings.warn("does not have many workers", FutureWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="many workers"):
            warnings.warn("The dataloader does not have many workers", stacklevel=1)
