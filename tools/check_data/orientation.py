"""Whether a mask lies as its image is stored, where EXIF turns the image without a change of size:
told by the picture's edges, on which borders of masks lie."""

import numpy as np
from PIL import ExifTags, Image, ImageOps

SIDE = 256
"""Pixels of the longer side at which edges are compared: annotators miss them by a few of more."""


def fits_better_as_stored(image: Image.Image, labels: Image.Image, orientation: int) -> bool:
    """Whether more contrast lies along the mask's borders once it is turned as EXIF turns the
    image; `image` and `labels` are of one size, as a viewer shows them."""
    turned = labels.copy()
    turned.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(turned, in_place=True)
    picture = image.convert("L")
    picture.thumbnail((SIDE, SIDE))
    as_shown, as_stored = (
        _contrast(picture, mask.resize(picture.size, Image.Resampling.NEAREST))
        for mask in (labels, turned)
    )
    return as_stored > as_shown


def _contrast(picture: Image.Image, labels: Image.Image) -> float:
    """The mean step of grey levels between neighbours of different classes."""
    grey, classes = np.asarray(picture).astype(np.int16), np.asarray(labels)
    steps = [np.abs(np.diff(grey, axis=axis))[np.diff(classes, axis=axis) != 0] for axis in (0, 1)]
    found = np.concatenate(steps)
    return float(found.mean()) if found.size else 0.0
