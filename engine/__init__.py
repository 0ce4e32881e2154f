"""What a method's page imports: its contract, the batch it sees, and the training itself."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.contract import Batch, Method, Panels, Step, TeacherMethod, main

__all__ = ["Batch", "Method", "Panels", "Step", "TeacherMethod", "main"]


def __getattr__(name: str) -> Any:
    """Import the names above on first use, so that `engine.start` does not load PyTorch."""
    if name in __all__:
        from engine import contract

        return getattr(contract, name)
    raise AttributeError(f"module 'engine' has no attribute '{name}'")
