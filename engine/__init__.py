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
    from dataset.batch import Batch
    from engine.command import main
    from engine.method import Method, StepOutput, TeacherMethod
    from semi.panels import Panels

    exported = {
        "Batch": Batch,
        "Method": Method,
        "Panels": Panels,
        "StepOutput": StepOutput,
        "TeacherMethod": TeacherMethod,
        "main": main,
    }
    return exported[name]
