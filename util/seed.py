"""Every random number follows from (seed, rank, step), so resuming needs no generator state.

The randomness of a sample does not even depend on the rank: `sample_generator` keys it by the
sample's position in the epoch, so neither the number of workers nor of processes changes the data.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seed all generators for one optimizer step of one process.

    Torch (all devices) draws different numbers in each process, such as for dropout; Python and
    numpy draw the same numbers in every process, for choices that all must share.
    """
    shared = np.random.SeedSequence([seed, 0, step]).generate_state(2)
    of_rank = np.random.SeedSequence([seed, rank, step]).generate_state(2)
    random.seed(int(shared[0]))
    np.random.seed(int(shared[0]))
    torch.manual_seed(int(of_rank[1]))


@contextmanager
def seeded_apart(seed: int, device: torch.device) -> Iterator[None]:
    """Seed all generators inside; restore their states afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            init_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def sample_generator(seed: int, stream: int, epoch: int, position: int) -> np.random.Generator:
    """Return the generator of the sample at `position` of an epoch.

    `stream`: 0 labelled, 1 unlabelled, 2 partner images.
    """
    return np.random.default_rng([seed, stream, epoch, position])


def init_seed(seed: int) -> None:
    """Seed the initial weights: the same on every process."""
    seed_step(seed, 0, 0)


def be_deterministic() -> None:
    """Let torch choose algorithms whose results do not depend on the order of threads."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    # Only warn: torch also lists some kernels that are deterministic.
    torch.use_deterministic_algorithms(True, warn_only=True)
