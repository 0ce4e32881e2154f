"""What a method shows of a batch: the contract between methods and those who draw.

A panel has a picture for each of B images; `engine.drawing` draws it.  A pixel of a map is known by
its number in it, row after row, as attention and ranking count them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Marks(NamedTuple):
    """Pixels to be marked."""

    pixels: Tensor
    """Their numbers, long `[B, M]`."""
    shape: Sequence[int]
    """The map (h, w) in which they are counted; its corners are the picture's."""


class Photo(NamedTuple):
    """Images as networks see them."""

    image: Tensor
    """Normalised: float `[B, C, H, W]`."""
    box: Tensor | None = None
    """A rectangle to be outlined: bool `[B, H, W]`."""
    marks: Marks | None = None


class Labels(NamedTuple):
    """Classes, in their colours."""

    label: Tensor
    """Long `[B, H, W]`."""
    shown: Tensor | None = None
    """Where; the rest is grey: bool `[B, H, W]`."""


class Heat(NamedTuple):
    """Shares between 0 and 1, such as confidence."""

    share: Tensor
    """Float `[B, h, w]`."""
    marks: Marks | None = None


Panels = dict[str, Photo | Labels | Heat]
"""By what they show, in the order in which they shall stand."""
