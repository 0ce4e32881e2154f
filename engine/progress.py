"""Scalars of the steps: means, a check for non-finite values, and the progress of an epoch on a
terminal or in a log; the CPU does not wait for the device at every step."""

import textwrap
import time
from collections.abc import Iterable, Iterator
from itertools import compress
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dataset.loaders import TrainingLoader
from engine.method import LEGEND
from engine.run_dir import RunDir
from model.checkpoint import save_atomically
from util import distributed
from util.errors import UserError, counted, duration
from util.log import logger

FETCH_EVERY = 20
SECONDS_BETWEEN_LINES = 30.0
LINE_WIDTH = 80
"""Characters in a line of the log, as on a terminal."""
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
BAR_LOSSES = 24
"""Characters of a bar that show losses."""
MAX_SAVED_BATCHES = 10
"""Batches with a non-finite loss that a run saves."""


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


class NonfiniteMonitor:
    """Report non-finite losses and gradients, without waiting for the device at every step.

    The optimizer skips a step with a non-finite `grad_norm` on the device. All ranks decide alike.
    """

    def __init__(self, limit: int, run_dir: RunDir, train_loader: TrainingLoader):
        self.limit, self.run_dir, self.train_loader = limit, run_dir, train_loader
        self.in_a_row = 0
        """Non-finite steps in a row, up to the last one checked."""
        self._pending: list[tuple[int, dict[str, Tensor]]] = []
        self._vanished = False
        """All gradients were 0 in the last step checked."""
        self._is_full = False
        """A message said that no more batches are saved."""

    def add(self, step: int, scalars: dict[str, Tensor]) -> None:
        """Add the scalars of a step, on the device, `grad_norm` among them."""
        self._pending.append((step, scalars))

    def check(self) -> None:
        """Check the steps since the last call, before any of them reaches a checkpoint.

        Raises `UserError` after more than `limit` non-finite steps in a row.
        """
        if not self._pending:
            return
        steps, scalars = zip(*self._pending, strict=True)
        self._pending = []
        names = list(scalars[0])
        bad = torch.stack([_flags(values) for values in scalars])
        own_flags = bad.tolist()  # before all_reduce, which overwrites `bad`
        flags = distributed.all_reduce(bad, "max").tolist()
        for step, (vanished, *faulty), (_, *own) in zip(steps, flags, own_flags, strict=True):
            faults = list(compress(names, faulty))
            self.in_a_row = self.in_a_row + 1 if faults else 0
            if faults:
                self._report(step, faults, own_faults=list(compress(names, own)))
            if vanished and not self._vanished:
                logger.warning(
                    "step %d: all gradients are 0 although the loss is not; nothing is learnt. "
                    "Fix: with float16, set precision=bfloat16 or float32; otherwise lower "
                    "optimizer.lr",
                    step,
                )
            self._vanished = bool(vanished)

    def _report(self, step: int, faults: list[str], own_faults: list[str]) -> None:
        """Report the names of a step's non-finite scalars: on any rank, and on this one."""
        scalars = [name for name in faults if name != "grad_norm"]
        what = f"not finite: {', '.join(scalars)}" if scalars else "gradients not finite"
        done = "step skipped" if "grad_norm" in faults else "step taken, its gradients are finite"
        saved = ""
        if scalars:  # float16 often overflows gradients until the loss scale fits
            is_on_this_rank = any(name in own_faults for name in scalars)
            saved = self._save_batch(step) if is_on_this_rank else "; its batch is on another rank"
        logger.warning("step %d: %s; %s%s", step, what, done, saved)
        if self.in_a_row > self.limit:
            raise UserError(
                f"step {step}: {what}; {counted(self.in_a_row, 'step')} in a row "
                f"(nonfinite_limit: {self.limit}). Fix: lower optimizer.lr, or look at the batch"
            )

    def _save_batch(self, step: int) -> str:
        """Save a step's batch unless `MAX_SAVED_BATCHES` are saved; return the end of a message."""
        if len(list(self.run_dir.path.glob("nonfinite_step*.pth"))) >= MAX_SAVED_BATCHES:
            if self._is_full:
                return ""
            self._is_full = True
            return f"; {MAX_SAVED_BATCHES} batches are saved, no more will be"
        path = self.run_dir.path / f"nonfinite_step{step}_rank{distributed.rank()}.pth"
        try:
            save_atomically(self.train_loader.batch_at(step), path)
        except (OSError, UserError) as error:
            return f"; its batch could not be saved ({error})"
        return f"; its batch is in {path}"


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
        """Show the means of the steps since the last time as those of `step`."""
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
        number of skipped steps, if any. After a resume, the steps before count as the measured ones
        took."""
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


def wrap_words(*words: str, first: str = "", rest: str = "  ") -> str:
    """Join texts into lines of `LINE_WIDTH`; a line breaks between them only.

    `first`, `rest`: indentation of the first line and of the others.
    """
    text = " ".join(word.replace(" ", "\0") for word in words)
    return textwrap.fill(
        text, LINE_WIDTH, initial_indent=first, subsequent_indent=rest,
        break_long_words=False, break_on_hyphens=False,
    ).replace("\0", " ")  # fmt: skip


def _pairs(means: dict[str, float], digits: int) -> list[str]:
    return [f"{name}={value:.{digits}f}" for name, value in means.items()]


def _flags(scalars: dict[str, Tensor]) -> Tensor:
    """Return int flags `[1 + scalars]` of a step, on the device: all gradients are 0 although the
    loss is not; then, for each scalar, that it is not finite."""
    vanished = (scalars["grad_norm"] == 0) & (scalars["loss"] != 0)
    return torch.stack([vanished, *(~x.isfinite() for x in scalars.values())]).int()
