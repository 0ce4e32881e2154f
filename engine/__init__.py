"""Names that the script of a method imports: its contract, its batches, and the command."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset.batch import Batch
    from engine.command import main
    from engine.method import Method, StepOutput, TeacherMethod
    from semi.panels import Panels

__all__ = ["Batch", "Method", "Panels", "StepOutput", "TeacherMethod", "main"]

HOMES = {
    "Batch": "dataset.batch",
    "Method": "engine.method",
    "Panels": "semi.panels",
    "StepOutput": "engine.method",
    "TeacherMethod": "engine.method",
    "main": "engine.command",
}
"""Modules of the names above."""


def __getattr__(name: str) -> Any:
    """Import the names above on first use, so that `engine.start` does not load PyTorch."""
    if name not in HOMES:
        raise AttributeError(f"module 'engine' has no attribute '{name}'")
    return getattr(importlib.import_module(HOMES[name]), name)
