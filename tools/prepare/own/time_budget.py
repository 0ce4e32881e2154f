"""Number of epochs that fits a time, from a measured step."""

import re
import sys
from pathlib import Path

from util.errors import UserError

UNITS = {"min": 60, "h": 3600, "d": 86400}
EPOCHS = 10
"""Epochs, and so validations, that a short run should have, if validation is fast."""


def seconds_of(text: str) -> float:
    """Return the seconds of `90min`, `2h` or `1.5d`; raises `UserError` for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(min|h|d)", text)
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise UserError(f"--time-budget {text}: expected a time such as 90min, 2h or 1.5d")
    return seconds


def fit_schedule(
    seconds: float, epochs: int, steps: int, step_seconds: float, validation_seconds: float
) -> tuple[int, int]:
    """Return epochs and steps per epoch that fit a time; at most the given ones.

    Shortens the epochs only where fewer than `EPOCHS` of them fit.
    """
    fitting = int(seconds / (steps * step_seconds + validation_seconds))
    if fitting >= min(EPOCHS, epochs):
        return min(fitting, epochs), steps
    # Validation may take half of the time.
    epochs = min(EPOCHS, epochs, int(seconds / 2 / max(validation_seconds, 1e-9)))
    steps = int((seconds / max(epochs, 1) - validation_seconds) / step_seconds)
    if epochs < 1 or steps < 1:
        raise UserError(
            f"--time-budget: a validation takes {validation_seconds:.0f} s and a step "
            f"{step_seconds:.1f} s on this machine; allow more time, or fewer validation images "
            "(--val). The config is written, with its usual epochs"
        )
    return epochs, steps


def schedule_for(config_file: Path, script: str, seconds: float) -> tuple[int, int, float]:
    """Measure steps of a method and fit the epochs of a config to a time.

    Returns epochs, steps per epoch and the hours that they take.
    """
    print(f"measuring steps of {script}.py", file=sys.stderr, flush=True)
    from engine.dry_run import measure_method
    from tools.methods import method_of
    from util.config.loading import load_config

    config = load_config(config_file)
    found, length, images = measure_method(method_of(script), config)
    every = config.evaluation.every
    step, validation = found.hours(1, 1, 0, every), found.hours(1, 0, images, every)
    epochs, steps = fit_schedule(seconds, config.epochs, length, 3600 * step, 3600 * validation)
    return epochs, steps, epochs * (steps * step + validation)
