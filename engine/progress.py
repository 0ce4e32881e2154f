"""Progress of an epoch on a terminal or in a log, without waiting for the device at every step."""

import textwrap
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
COLUMNS = 80
"""Width of a terminal, for lines of the log."""
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}, {left} left{postfix}"
BAR_LOSSES = 24
"""Columns of a bar that show losses."""

LEGEND = {
    "loss": "weighted sum of the losses",
    "x": "supervised loss of labelled images",
    "x_corr": "supervised loss after pixel propagation",
    "s": "consistency loss of strong views",
    "kl": "KL divergence of strong and weak view",
    "fp": "consistency loss with perturbed features",
    "corr": "consistency loss after pixel propagation",
    "prev": "consistency loss with previous models",
    "rank": "ranking loss of reference pixels",
    "mask_ratio": "share of pixels above the confidence threshold",
    "threshold": "confidence threshold",
    "grad_norm": "norm of the gradient",
}
"""Meaning of each scalar of the methods, for the log and for `tools.report`; optional for the
scalars of a new method."""


class Means:
    """Running means of scalars that stay on the device until they are fetched."""

    def __init__(
        self, state: dict[str, Any] | None = None, device: torch.device | None = None
    ) -> None:
        """Continue from a `state`, on `device`: processes exchange sums that are on their GPUs."""
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
        """Return sums, averaged over all processes, and the number of steps."""
        if not self._sums:
            return {"sums": {}, "count": 0}
        total = distributed.all_reduce(torch.stack(list(self._sums.values())))
        stacked = total / distributed.world_size()
        # Each process continues from the mean, as it would after a resume.
        self._sums = dict(zip(self._sums, stacked, strict=True))
        return {"sums": dict(zip(self._sums, stacked.cpu(), strict=True)), "count": self._count}

    def fetch(self) -> dict[str, float]:
        """Return the means over all processes; the one place that waits for the device."""
        state = self.state()
        return {name: (value / state["count"]).item() for name, value in state["sums"].items()}


class Bar(tqdm):
    """A bar of an epoch with the time left for all epochs."""

    steps_after = 0
    """Steps of the later epochs."""

    @property
    def format_dict(self) -> dict[str, Any]:
        facts = super().format_dict
        taken = facts["n"] - facts["initial"]
        steps = facts["total"] - facts["n"] + self.steps_after
        left = duration(steps * facts["elapsed"] / taken) if taken else "?"
        return {**facts, "left": left}


class Progress:
    """Losses and remaining time of an epoch: a bar on a terminal, else a line every
    `SECONDS_BETWEEN_LINES`; every `FETCH_EVERY` steps the means since the last time go to the
    trackers.

    `done` steps of the epoch were taken before.  `legend`: explain the losses after the first step.
    """

    def __init__(
        self, epoch: int, epochs: int, steps: int, done: int, run_dir: RunDir, legend: bool = False
    ):
        self.title = f"epoch {epoch + 1}/{epochs}"
        self.first_step, self.last_step = epoch * steps, epochs * steps
        self.steps, self.done, self.run_dir, self.legend = steps, done, run_dir, legend
        self._recent = Means()
        self._begin = self._last_line = time.monotonic()

    def over(self, batches: Iterable[Any]) -> Iterator[Any]:
        # A terminal gets a bar (tqdm's disable=None asks the stream), and only from one process.
        hidden = None if distributed.is_main() else True
        self._bar = Bar(
            batches,
            desc=self.title,
            total=self.steps,
            initial=self.done,
            disable=hidden,
            dynamic_ncols=True,
            leave=False,
            bar_format=BAR,
        )
        self._bar.steps_after = self.last_step - self.first_step - self.steps
        yield from self._bar

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Take the scalars of a step, which stay on the device."""
        self._recent.add(scalars)
        if self.legend:
            text = "; ".join(f"{name}: {LEGEND[name]}" for name in scalars if name in LEGEND)
            logger.info("%s", wrapped(*text.split()))
            self.legend = False

    def due(self, step: int) -> bool:
        """Return whether the scalars are fetched after step `step` of the run."""
        done = step - self.first_step + 1
        return done % FETCH_EVERY == 0 or done == self.steps

    def show(self, step: int, lr: float) -> None:
        """Fetch the means of the steps since the last time, and show them as those of `step`."""
        means, self._recent = self._recent.fetch(), Means()
        self.run_dir.scalars({f"train/{k}": v for k, v in means.items()} | {"train/lr": lr}, step)
        self._bar.set_postfix_str(_fitting(means, BAR_LOSSES), refresh=False)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            title = f"{self.title} step {step - self.first_step + 1}/{self.steps}"
            logger.info("%s", wrapped(f"{title} ({self._left(step)} left):", *_pairs(means, 3)))

    def summary(self, whole: Means) -> dict[str, Any]:
        """Log and return the means of the epoch, `whole`; return also its seconds (after a resume,
        those of its rest) and those of a step."""
        seconds, means = time.monotonic() - self._begin, whole.fetch()
        took = f"{seconds:.0f} s" if seconds < 100 else duration(seconds)
        step = self.first_step + self.steps - 1
        left = f", {self._left(step)} left" if step + 1 < self.last_step else ""
        logger.info("%s", wrapped(f"{self.title} ({took}{left}):", *_pairs(means, 4)))
        step_seconds = seconds / max(1, self.steps - self.done)
        return {"train": means, "seconds": seconds, "step_seconds": step_seconds}

    def _left(self, step: int) -> str:
        """Return the time that the steps after `step` take in all epochs."""
        taken = step - self.first_step - self.done + 1
        per_step = (time.monotonic() - self._begin) / max(1, taken)
        return duration(per_step * (self.last_step - step - 1))


def wrapped(*words: str, first: str = "", rest: str = "  ") -> str:
    """Join texts into lines of `COLUMNS`; a line breaks between them only.

    `first`, `rest`: indentation of the first line and of the others.
    """
    text = " ".join(word.replace(" ", "\0") for word in words)
    wrapper = textwrap.TextWrapper(COLUMNS, first, rest, break_long_words=False)
    wrapper.break_on_hyphens = False
    return wrapper.fill(text).replace("\0", " ")


def _pairs(means: dict[str, float], digits: int) -> list[str]:
    return [f"{name} {value:.{digits}f}" for name, value in means.items()]


def _fitting(means: dict[str, float], columns: int) -> str:
    """Return the first means that fit."""
    text = ""
    for pair in _pairs(means, 2):
        if len(text) + len(pair) < columns:
            text += f" {pair}"
    return text.strip()
