"""Decisions of all ranks whether to save inside an epoch, and whether to stop."""

import time

from util import distributed
from util.config.schema import Config

SLOW_STEP_SECONDS = 1.0
"""Seconds per step above which all ranks decide after every step."""


class SaveClock:
    """Steps and times since the last checkpoint, and since the last decision of all ranks."""

    def __init__(self, config: Config):
        self.save_every, self.save_minutes = config.save_every, config.save_minutes
        self.saved(0)
        self.start_epoch(0)
        self._is_slow = True
        """True if steps took longer than `SLOW_STEP_SECONDS` on average at the last decision, or
        none was taken yet."""

    def saved(self, epoch_step: int) -> None:
        """Note a checkpoint after `epoch_step` steps of the epoch."""
        self._saved_epoch_step, self._saved_time = epoch_step, time.monotonic()

    def start_epoch(self, run_step: int) -> None:
        """Leave out the time since the last decision, in which no steps were taken."""
        self._decided_run_step, self._decided_time = run_step, time.monotonic()

    def is_decision_due(self, epoch_step: int) -> bool:
        """Return True, alike on all ranks, where a decision is worth its all-reduce."""
        return distributed.world_size() == 1 or self._is_slow or self._is_due_by_steps(epoch_step)

    def decide(self, run_step: int, epoch_step: int, is_stopping: bool) -> tuple[bool, bool]:
        """Return whether a checkpoint is due, and whether to stop, on any rank; all call it."""
        now = time.monotonic()
        is_slow = now - self._decided_time > SLOW_STEP_SECONDS * (run_step - self._decided_run_step)
        is_due, is_stopping, self._is_slow = distributed.any_rank(
            self._is_due(epoch_step), is_stopping, is_slow
        )
        self._decided_run_step, self._decided_time = run_step, now
        return is_due, is_stopping

    def _is_due(self, epoch_step: int) -> bool:
        """Return True if the config asks for a checkpoint after `epoch_step` steps."""
        minutes = self.save_minutes
        by_time = minutes is not None and time.monotonic() - self._saved_time >= 60 * minutes
        return by_time or self._is_due_by_steps(epoch_step)

    def _is_due_by_steps(self, epoch_step: int) -> bool:
        every = self.save_every
        return every is not None and epoch_step - self._saved_epoch_step >= every
