"""Detect non-finite losses and gradients, report them, and keep them out of running statistics."""

from collections.abc import Callable
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn

from engine.run_dir import RunDir
from model.checkpoint import save_atomically
from util import distributed
from util.errors import UserError, counted
from util.log import logger

MOST_BATCHES = 10
"""Batches with a non-finite loss that a run saves."""


class NonfiniteMonitor:
    """Report non-finite losses and gradients, without waiting for the device at every step.

    The optimizer skips a step with a non-finite `grad_norm` on the device.  All ranks decide alike.
    """

    def __init__(self, limit: int, run_dir: RunDir, batch_of: Callable[[int], Any]):
        """`batch_of` loads a step's raw batch again, to save it in the run directory."""
        self.limit, self.run_dir, self.batch_of = limit, run_dir, batch_of
        self.in_a_row = 0
        """Non-finite steps in a row, up to the last one checked."""
        self._pending: list[tuple[int, dict[str, Tensor]]] = []
        self._vanished = self._is_full = False

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
        own = bad.tolist()
        rows = distributed.all_reduce(bad, "max").tolist()
        for step, (vanished, *row), (_, *mine) in zip(steps, rows, own, strict=True):
            faults, own_faults = list(compress(names, row)), list(compress(names, mine))
            self.in_a_row = self.in_a_row + 1 if faults else 0
            if faults:
                self._report(step, faults, own_faults)
            if vanished and not self._vanished:
                logger.warning(
                    "step %d: all gradients are 0 although the loss is not; nothing is learnt. "
                    "Fix: precision: float32 or bfloat16 if it is float16, else a lower "
                    "optimizer.lr",
                    step,
                )
            self._vanished = bool(vanished)

    def _report(self, step: int, faults: list[str], own: list[str]) -> None:
        """Report the non-finite scalars of a step: `faults` of any rank, `own` of this one."""
        terms = [name for name in faults if name != "grad_norm"]
        what = f"loss terms {', '.join(terms)}" if terms else "gradients"
        done = "step skipped" if "grad_norm" in faults else "step taken, its gradients are finite"
        kept = ""
        if terms:  # gradients alone overflow often in float16, while its scale is sought
            is_own = any(name in own for name in terms)
            kept = self._save_batch(step) if is_own else "; its batch is another rank's"
        logger.warning("step %d: %s not finite, %s%s", step, what, done, kept)
        if self.in_a_row > self.limit:
            raise UserError(
                f"step {step}: {what} not finite; {counted(self.in_a_row, 'step')} in a row "
                f"(nonfinite_limit: {self.limit}). Fix: lower optimizer.lr, or look at the batch"
            )

    def _save_batch(self, step: int) -> str:
        """Save a step's batch, unless `MOST_BATCHES` are saved; return the end of a message."""
        if len(list(self.run_dir.path.glob("nonfinite_step*.pth"))) >= MOST_BATCHES:
            said, self._is_full = self._is_full, True
            return "" if said else f"; {MOST_BATCHES} batches are saved, no more will be"
        path = self.run_dir.path / f"nonfinite_step{step}_rank{distributed.rank()}.pth"
        try:
            save_atomically(self.batch_of(step), path)
        except (OSError, UserError) as error:
            return f"; its batch could not be saved ({error})"
        return f"; its batch is in {path}"


class Statistics:
    """Running statistics of a method, which a non-finite batch would spoil in the forward pass."""

    def __init__(self, method: nn.Module):
        self._buffers = [b for b in method.buffers() if b.is_floating_point()]

    def now(self) -> Tensor:
        """Return a copy of all of them as one tensor."""
        flat = [b.flatten() for b in self._buffers]
        return torch.cat(flat) if flat else torch.empty(0)

    def restore_unless_finite(self, before: Tensor) -> None:
        """Restore a copy if any statistic is NaN or infinite; decided on the device."""
        now = self.now()
        kept = torch.where(now.isfinite().all(), now, before)
        for buffer, value in zip(
            self._buffers, kept.split([b.numel() for b in self._buffers]), strict=True
        ):
            buffer.copy_(value.view_as(buffer))


def _flags(scalars: dict[str, Tensor]) -> Tensor:
    """Return flags of a step, on the device: all gradients are 0 although the loss is not; and, for
    each scalar, it is not finite."""
    vanished = (scalars["grad_norm"] == 0) & (scalars["loss"] != 0)
    return torch.stack([vanished, *(~x.isfinite() for x in scalars.values())]).int()
