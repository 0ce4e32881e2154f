"""The contract between data and methods: what a batch holds, before and after views are made.

B images with C channels, H x W pixels; V strong views.  A pair of images is one with the channels
of both.  Where CutMix takes its partners from the batch itself, `partner_index` says where in it
they are; else `partner` holds other images.
"""

from typing import TypedDict

from torch import Tensor
from typing_extensions import NotRequired


class Labeled(TypedDict):
    """Labelled images, weakly augmented."""

    image: Tensor
    """Normalised: float `[B, C, H, W]`."""
    mask: Tensor
    """Classes, 255 where they do not count: long `[B, H, W]`."""


class View(TypedDict):
    """The weak view of unlabelled images."""

    weak: Tensor
    """Normalised: float `[B, C, H, W]`."""
    ignore: Tensor
    """True in the padding: bool `[B, H, W]`."""


class Unlabeled(View):
    """Unlabelled images, with the partners that CutMix puts into their strong views."""

    strong: list[Tensor]
    """V CutMixed strong views, normalised: float `[B, C, H, W]` each."""
    box: list[Tensor]
    """Where each of these shows the partner: bool `[B, H, W]` each."""
    partner: NotRequired[View]
    partner_index: NotRequired[Tensor]
    """Long `[B]`."""


class Batch(TypedDict):
    """What the step of a method sees."""

    labeled: Labeled
    unlabeled: NotRequired[Unlabeled]
    """Absent where the method asks for none."""


class RawLabeled(TypedDict):
    image: Tensor
    """uint8, or float in [0, 1]: `[B, H, W, C]`."""
    mask: Tensor
    """uint8 `[B, H, W]`."""


class RawView(TypedDict):
    image: Tensor
    """uint8, or float in [0, 1]: `[B, H, W, C]`."""
    ignore: Tensor
    """bool `[B, H, W]`."""
    views: list[dict[str, Tensor]]
    """Parameters of the V strong views, as `draw_strong` (dataset/transforms/strong.py) drew them;
    for pairs, those of both dates of a view in a row."""
    boxes: Tensor
    """CutMix boxes (x0, y0, x1, y1), empty for none: long `[B, V, 4]`."""


class RawUnlabeled(RawView):
    partner: NotRequired[RawView]


class RawBatch(TypedDict):
    """What the data workers send: bytes, and parameters of augmentations still to be made."""

    labeled: RawLabeled
    unlabeled: NotRequired[RawUnlabeled]
