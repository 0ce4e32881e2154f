"""Every random number follows from (seed, rank, step), so resuming needs no generator state.

The randomness of a sample does not even depend on the rank: `sample_generator` keys it by the
sample's place in the epoch, so neither the number of workers nor of processes changes the data.
"""

import random

import numpy as np
import torch


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seed python, numpy and torch (all devices) for one optimizer step of one process."""
    state = np.random.SeedSequence([seed, rank, step]).generate_state(2, np.uint32)
    random.seed(int(state[0]))
    np.random.seed(int(state[0]))
    torch.manual_seed(int(state[1]))


def sample_generator(seed: int, stream: int, epoch: int, position: int) -> np.random.Generator:
    """The generator of the sample at `position` of an epoch; `stream` tells the lists apart."""
    return np.random.default_rng([seed, stream, epoch, position])


def init_seed(seed: int) -> None:
    """Seed the initial weights: the same on every process."""
    seed_step(seed, 0, 0)
