"""Losses on their way from the device to the eye, without a wait in every step."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from engine.run_dir import RunDir
from util import distributed
from util.errors import duration
from util.log import logger

FETCH_EVERY = 20
SECONDS_BETWEEN_LINES = 30.0


class Means:
    """Running means of scalars that stay on the device until they are fetched."""

    def __init__(
        self, state: dict[str, Any] | None = None, device: torch.device | None = None
    ) -> None:
        """Goes on from a `state`, on `device`: processes exchange sums that are on their GPUs."""
        state = state or {"sums": {}, "count": 0}
        self._sums: dict[str, Tensor] = {k: v.to(device) for k, v in state["sums"].items()}
        self._count: int = state["count"]

    def add(self, scalars: dict[str, Tensor]) -> None:
        for name, value in scalars.items():
            # A value that is not finite is reported by the monitor, and would hide all other steps.
            value = value.detach().float().nan_to_num(0.0, 0.0, 0.0)
            if name in self._sums:
                value = value + self._sums[name]
            self._sums[name] = value
        self._count += 1

    def state(self) -> dict[str, Any]:
        """Sums, averaged over all processes, and number of steps."""
        if not self._sums:
            return {"sums": {}, "count": 0}
        total = distributed.all_reduce(torch.stack(list(self._sums.values())))
        stacked = total / distributed.world_size()
        # Each process goes on with the mean, as it would when resumed from here.
        self._sums = dict(zip(self._sums, stacked, strict=True))
        return {"sums": dict(zip(self._sums, stacked.cpu(), strict=True)), "count": self._count}

    def fetch(self) -> dict[str, float]:
        """The means over all processes; the one place that waits for the device."""
        state = self.state()
        return {name: (value / state["count"]).item() for name, value in state["sums"].items()}


class Progress:
    """A bar over the batches of an epoch, with losses and remaining time; lines where the output
    is not a terminal.  When it is due, the means since the last time go to TensorBoard.

    `done` steps of the epoch lie behind.
    """

    def __init__(self, epoch: int, epochs: int, steps: int, done: int, folder: RunDir):
        self.title = f"epoch {epoch + 1}/{epochs}"
        self.epochs_left = epochs - epoch - 1
        self.first_step, self.steps, self.folder = epoch * steps, steps, folder
        self.done = done
        self._recent = Means()
        self._begin = self._last_line = time.monotonic()

    def over(self, batches: Iterable[Any]) -> Iterator[Any]:
        # A terminal gets a bar (tqdm's disable=None asks the stream), and only from one process.
        hidden = None if distributed.is_main() else True
        self._bar = tqdm(
            batches,
            desc=self.title,
            total=self.steps,
            initial=self.done,
            disable=hidden,
            dynamic_ncols=True,
            leave=False,
        )
        yield from self._bar

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Take the scalars of a step, which stay on the device."""
        self._recent.add(scalars)

    def due(self, step: int) -> bool:
        """Whether step `step` of the run is one of those after which the device is waited for."""
        done = step - self.first_step + 1
        return done % FETCH_EVERY == 0 or done == self.steps

    def show(self, step: int, lr: float) -> None:
        """Fetch the means of the steps since the last time, and show them as those of `step`."""
        means, self._recent = self._recent.fetch(), Means()
        self.folder.scalars({f"train/{k}": v for k, v in means.items()} | {"train/lr": lr}, step)
        text = _as_text(means, 3)
        self._bar.set_postfix_str(text, refresh=False)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            done = step - self.first_step + 1
            logger.info("%s step %d/%d %s", self.title, done, self.steps, text)

    def summary(self, whole: Means) -> dict[str, Any]:
        """The means of the epoch, `whole`, the seconds that it took (where it was resumed, its
        rest) and those of a step; says the first two."""
        seconds, means = time.monotonic() - self._begin, whole.fetch()
        text = _as_text(means, 4)
        left = f", {duration(self.epochs_left * seconds)} left" if self.epochs_left else ""
        logger.info("%s %s (%.0f s%s)", self.title, text, seconds, left)
        step_seconds = seconds / max(1, self.steps - self.done)
        return {"train": means, "seconds": seconds, "step_seconds": step_seconds}


def _as_text(means: dict[str, float], digits: int) -> str:
    return " ".join(f"{name} {value:.{digits}f}" for name, value in means.items())
