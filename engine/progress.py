"""Scalars of the steps: means, and the progress of an epoch on a terminal or in a log; the CPU does
not wait for the device at every step."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from engine.method import LEGEND
from engine.run_dir import RunDir
from util import distributed
from util.errors import duration
from util.log import logger, wrap_words

FETCH_EVERY = 20
SECONDS_BETWEEN_LINES = 30.0
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
BAR_LOSSES = 24
"""Characters of a bar that show losses."""


class Means:
    """Running means of the finite values of scalars, which stay on the device until they are
    fetched."""

    def __init__(
        self, state: dict[str, Any] | None = None, device: torch.device | None = None
    ) -> None:
        """Continue from a `state`, on `device`: processes exchange sums that are on their GPUs."""
        state = state or {"sums": {}, "count": 0}
        self._count: int = state["count"]
        finite = state.get("finite", {})  # older versions counted all values
        self._sums: dict[str, Tensor] = {
            name: torch.stack([v, finite.get(name, torch.full_like(v, self._count))]).to(device)
            for name, v in state["sums"].items()
        }
        """Sum and number of the finite values, `[2]`."""

    def add(self, scalars: dict[str, Tensor]) -> None:
        values = torch.stack([value.detach().float() for value in scalars.values()])
        # The monitor reports a non-finite value, which would hide all other steps here.
        pairs = torch.stack([values.nan_to_num(0.0, 0.0, 0.0), values.isfinite().float()], dim=1)
        for name, pair in zip(scalars, pairs, strict=True):
            self._sums[name] = self._sums[name] + pair if name in self._sums else pair
        self._count += 1

    def state(self) -> dict[str, Any]:
        """Return sums and numbers of finite values, averaged over all processes, and the number of
        steps."""
        if not self._sums:
            return {"sums": {}, "finite": {}, "count": 0}
        total = distributed.all_reduce(torch.stack(list(self._sums.values())))
        stacked = total / distributed.world_size()
        # Each process continues from the mean, as it would after a resume.
        self._sums = dict(zip(self._sums, stacked, strict=True))
        columns = zip(("sums", "finite"), stacked.cpu().unbind(1), strict=True)
        pairs = {key: dict(zip(self._sums, column, strict=True)) for key, column in columns}
        return {**pairs, "count": self._count}

    def fetch(self) -> tuple[dict[str, float], int]:
        """Return the means over all processes, without scalars that were never finite, and the
        number of skipped steps; begin new means. Waits for the device."""
        state = self.state()
        self._sums, self._count = {}, 0
        finite = state["finite"]
        means = {k: (v / finite[k]).item() for k, v in state["sums"].items() if finite[k]}
        return means, state["count"] - int(finite.get("grad_norm", state["count"]))


class Progress:
    """Losses and remaining time of an epoch: a bar on a terminal, else a line every
    `SECONDS_BETWEEN_LINES`; every `FETCH_EVERY` steps the means since the last time go to the
    trackers.
    """

    def __init__(
        self,
        run_dir: RunDir,
        epoch: int,
        epochs: int,
        steps: int,
        done: int,
        legend: bool,
        validation_seconds: float = 0.0,
    ):
        """`epoch`: from 0. `steps`: of an epoch; `done`: completed ones. `legend`: explain the
        losses after the first step. `validation_seconds`: of all validations that are left."""
        self.run_dir, self.legend = run_dir, legend
        self.validation_seconds = validation_seconds
        self.title = f"epoch {epoch + 1}/{epochs}"
        self.first_step, self.all_steps = epoch * steps, epochs * steps
        self.steps, self.resumed_at = steps, done
        self._recent = Means()
        self._begin = self._last_line = time.monotonic()

    def over(self, batches: Iterable[Any]) -> Iterator[Any]:
        # A terminal gets a bar (tqdm's disable=None asks the stream), and only from one process.
        hidden = None if distributed.is_main() else True
        self._bar = tqdm(
            batches,
            desc=self.title,
            total=self.steps,
            initial=self.resumed_at,
            disable=hidden,
            dynamic_ncols=True,
            leave=False,
            bar_format=BAR,
        )
        yield from self._bar

    def add(self, step: int, scalars: dict[str, Tensor], lr: float) -> bool:
        """Take the scalars of a step of the run, which stay on the device; return True for every
        `FETCH_EVERY`-th step and the last one, which fetch and show the means."""
        self._recent.add(scalars)
        if self.legend:
            text = "; ".join(f"{name}: {LEGEND[name]}" for name in scalars if name in LEGEND)
            logger.info("%s", wrap_words(*text.split()))
            self.legend = False
        done = step - self.first_step + 1
        is_due = done % FETCH_EVERY == 0 or done == self.steps
        if is_due:
            self._show(step, lr)
        return is_due

    def _show(self, step: int, lr: float) -> None:
        """Log the means over the steps since the previous call, under the number `step`."""
        means, _ = self._recent.fetch()
        values = {f"train/{k}": v for k, v in means.items()} | {"train/lr": lr}
        self.run_dir.log_scalars(values, step)
        self._bar.set_postfix_str(self._postfix(step, means), refresh=False)
        now, done = time.monotonic(), step - self.first_step + 1
        is_due = now - self._last_line > SECONDS_BETWEEN_LINES and done < self.steps
        if self._bar.disable and is_due:  # after the last step, `summary` follows
            self._last_line = now
            title = f"{self.title} step {done}/{self.steps}"
            logger.info("%s", wrap_words(f"{title} ({self._left(step)} left):", *_pairs(means, 3)))

    def summary(self, epoch_means: Means) -> dict[str, Any]:
        """Log and return the means of the epoch; also return its seconds, those of a step, and the
        number of skipped steps, if any. After a resume, the seconds of the whole epoch are
        extrapolated from the measured steps."""
        seconds = time.monotonic() - self._begin
        means, skipped = epoch_means.fetch()
        took = f"{seconds:.0f} s" if seconds < 100 else duration(seconds)
        step = self.first_step + self.steps - 1
        left = f", {self._left(step)} left" if step + 1 < self.all_steps else ""
        logger.info("%s", wrap_words(f"{self.title} ({took}{left}):", *_pairs(means, 4)))
        record: dict[str, Any] = {"train": means, "seconds": seconds}
        if taken := self.steps - self.resumed_at:
            record["step_seconds"] = seconds / taken
            record["seconds"] = self.steps * seconds / taken
        if skipped:
            record["skipped"] = skipped
        return record

    def _postfix(self, step: int, means: dict[str, float]) -> str:
        """Return the time left for all epochs and the first losses, as many as fit a bar."""
        losses = ""
        for pair in _pairs(means, 2):
            if len(losses) + len(pair) < BAR_LOSSES:
                losses += f" {pair}"
        return f"{self._left(step)} left,{losses}"

    def _left(self, step: int) -> str:
        """Return the time that the steps after `step`, and validations, take in all epochs."""
        taken = step - self.first_step - self.resumed_at + 1
        per_step = (time.monotonic() - self._begin) / max(1, taken)
        return duration(per_step * (self.all_steps - step - 1) + self.validation_seconds)


def _pairs(means: dict[str, float], digits: int) -> list[str]:
    return [f"{name}={value:.{digits}f}" for name, value in means.items()]
