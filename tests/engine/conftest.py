"""Fixtures of several test files."""

import pytest


@pytest.fixture
def short(toy):
    """Two epochs of three steps, in batches that two processes can share."""
    return toy.change(epochs=2, epoch_length=3, batch_size=4)
