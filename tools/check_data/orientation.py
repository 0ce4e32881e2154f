"""Detect masks that ignore their image's EXIF orientation, by edges of the image along the borders
of the mask."""

import numpy as np
from PIL import ExifTags, Image, ImageOps

SIDE = 256
"""Longer side at which edges are compared, as annotations are a few pixels off at full size."""


def fits_stored_orientation(image: Image.Image, labels: Image.Image, orientation: int) -> bool:
    """Return True if the image has more contrast along the borders of the mask after the mask is
    turned by the image's EXIF orientation; both have one size, as a viewer shows them."""
    turned = labels.copy()
    turned.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(turned, in_place=True)
    grey = image.convert("L")
    grey.thumbnail((SIDE, SIDE))
    as_shown, as_stored = (
        _contrast(grey, mask.resize(grey.size, Image.Resampling.NEAREST))
        for mask in (labels, turned)
    )
    return as_stored > as_shown


def _contrast(picture: Image.Image, labels: Image.Image) -> float:
    """Return the mean difference of grey levels between neighbours of different classes."""
    grey, classes = np.asarray(picture).astype(np.int16), np.asarray(labels)
    steps = [np.abs(np.diff(grey, axis=axis))[np.diff(classes, axis=axis) != 0] for axis in (0, 1)]
    differences = np.concatenate(steps)
    return float(differences.mean()) if differences.size else 0.0
