"""What is not finite is found, said, and kept out of the weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from util import dist
from util.checkpoint import save_atomically
from util.errors import UserError
from util.log import logger


class Guard:
    """Watches losses and gradients without waiting for the device in every step.

    The gradient scaler leaves out, on the device, an optimizer step whose gradients are not
    finite.  What such a batch has done to running statistics is undone here, at the next look.
    """

    def __init__(self, method: nn.Module, limit: int, folder: Path, batch_of: Callable[[int], Any]):
        """`batch_of` finds a step's raw batch again."""
        self.limit, self.folder, self.batch_of = limit, folder, batch_of
        self._seen: list[tuple[int, dict[str, Tensor]]] = []
        self._in_a_row = 0
        self._buffers = [b for b in method.buffers() if b.is_floating_point()]
        self._good = [b.clone() for b in self._buffers]

    def note(self, step: int, scalars: dict[str, Tensor]) -> None:
        """The scalars of a step, on the device, among them `grad_norm`."""
        self._seen.append((step, scalars))

    def look(self) -> None:
        """Judge the steps since the last look, before any of them reaches a checkpoint.

        Raises `UserError` when more than `limit` steps in a row were not finite.
        """
        if not self._seen:
            return
        steps, scalars = zip(*self._seen, strict=True)
        self._seen = []
        names = list(scalars[0])
        finite = torch.stack([torch.stack([s[n].isfinite() for n in names]) for s in scalars])
        for step, row in zip(steps, finite.tolist(), strict=True):
            faults = [name for name, good in zip(names, row, strict=True) if not good]
            self._in_a_row = self._in_a_row + 1 if faults else 0
            if faults:
                self._report(step, faults)
        self._restore_or_remember()

    def _report(self, step: int, faults: list[str]) -> None:
        terms = [name for name in faults if name != "grad_norm"]
        what = f"loss terms {', '.join(terms)}" if terms else "gradients"
        kept = ""
        if terms:  # gradients alone are mostly float16's, while its scaler seeks a scale
            path = self.folder / f"nonfinite_step{step}_rank{dist.rank()}.pth"
            save_atomically(self.batch_of(step), path)
            kept = f"; its batch is in {path}"
        logger.warning("step %d: %s not finite, step left out%s", step, what, kept)
        if self._in_a_row > self.limit:
            raise UserError(
                f"step {step}: {what} not finite, the {self._in_a_row}th step in a row "
                f"(nonfinite_limit: {self.limit}); lower optimizer.lr, or look at the batch"
            )

    def _restore_or_remember(self) -> None:
        sums = torch.stack([b.sum() for b in self._buffers] or [torch.zeros(())])
        clean = bool(sums.isfinite().all())
        for buffer, good in zip(self._buffers, self._good, strict=True):
            if clean:
                good.copy_(buffer)
            else:
                buffer.copy_(good)
