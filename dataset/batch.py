"""Contents of a batch, before and after views are made.

B images with C channels, H x W pixels; V strong views. A pair of images is one image with the
channels of both. CutMix partners are other images in `partner`, or images of the same batch at
`partner_index`.
"""

from typing import TypedDict

from torch import Tensor
from typing_extensions import NotRequired


class Labeled(TypedDict):
    """Labelled images, weakly augmented."""

    image: Tensor
    """Normalised: float `[B, C, H, W]`."""
    mask: Tensor
    """Class indices, 255 = ignore: long `[B, H, W]`."""


class View(TypedDict):
    """The weak view of unlabelled images."""

    weak: Tensor
    """Normalised: float `[B, C, H, W]`."""
    ignore: Tensor
    """True in the padding and where the image has no data: bool `[B, H, W]`."""


class Unlabeled(View):
    """Unlabelled images, with the partners that CutMix puts into their strong views."""

    strong: list[Tensor]
    """V CutMixed strong views, normalised: float `[B, C, H, W]` each."""
    box: list[Tensor]
    """CutMix box of each strong view, True where it shows the partner: bool `[B, H, W]` each."""
    partner: NotRequired[View]
    partner_index: NotRequired[Tensor]
    """Long `[B]`."""


class Batch(TypedDict):
    """Batch for the step of a method."""

    labeled: Labeled
    unlabeled: NotRequired[Unlabeled]
    """Absent for a method that uses labelled images only."""


class RawLabeled(TypedDict):
    image: Tensor
    """uint8, or float in [0, 1]: `[B, H, W, C]`."""
    mask: Tensor
    """uint8 `[B, H, W]`."""


class RawView(TypedDict):
    image: Tensor
    """uint8, or float in [0, 1]: `[B, H, W, C]`."""
    ignore: Tensor
    """True in the padding and where the image has no data: bool `[B, H, W]`."""
    strong_params: list[dict[str, Tensor]]
    """Parameters of the V strong views, as `draw_strong` (dataset/transforms/strong.py) drew them;
    pairs have two entries for each view, one for each date."""
    boxes: Tensor
    """CutMix boxes (x0, y0, x1, y1), empty for none: long `[B, V, 4]`."""


class RawUnlabeled(RawView):
    partner: NotRequired[RawView]


class RawBatch(TypedDict):
    """Batch from the data workers: pixels, and parameters of augmentations to apply."""

    labeled: RawLabeled
    unlabeled: NotRequired[RawUnlabeled]
