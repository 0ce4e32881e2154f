"""Names that the script of a method imports: its contract, its batches, and the command."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset.batch import Batch
    from engine.command import main
    from engine.method import Method, StepOutput, TeacherMethod
    from semi.panels import Panels

__all__ = ["Batch", "Method", "Panels", "StepOutput", "TeacherMethod", "main"]


def __getattr__(name: str) -> Any:
    """Import the names above on first use, so that `engine.start` does not load PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module 'engine' has no attribute '{name}'")
    from dataset import batch
    from engine import command, method
    from semi import panels

    modules = (batch, panels, method, command)
    return next(vars(module)[name] for module in modules if name in vars(module))
