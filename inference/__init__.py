"""Prediction with trained networks: `from inference import Segmenter`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.segmenter import Segmentation, Segmenter

__all__ = ["Segmentation", "Segmenter"]


def __getattr__(name: str) -> Any:
    """Import the names above on first use, so that light commands do not load the networks."""
    if name in __all__:
        from inference import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module 'inference' has no attribute '{name}'")
