"""Reports of steps with a non-finite loss or gradient."""

from itertools import compress

import torch
from torch import Tensor

from dataset.loaders import TrainingLoader
from engine.run_dir import RunDir
from model.checkpoint import save_atomically
from util import distributed
from util.errors import UserError, counted
from util.log import logger

MAX_SAVED_BATCHES = 10
"""Batches with a non-finite loss that a run saves."""


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


def _flags(scalars: dict[str, Tensor]) -> Tensor:
    """Return int flags `[1 + scalars]` of a step, on the device: all gradients are 0 although the
    loss is not; then, for each scalar, that it is not finite."""
    vanished = (scalars["grad_norm"] == 0) & (scalars["loss"] != 0)
    return torch.stack([vanished, *(~x.isfinite() for x in scalars.values())]).int()
