"""Distances between the surfaces of two volumes: HD95 and average surface distance.

The surface of a mask is its voxels with a face neighbour outside the mask or outside the volume.
Each surface voxel has a distance to the nearest surface voxel of the other mask.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def surface_scores(
    predicted: np.ndarray, target: np.ndarray, spacing: Sequence[float]
) -> tuple[float, float]:
    """Return HD95 and average surface distance of two masks `[D, H, W]` (bool, or 0 outside), in
    the unit of `spacing` (of each axis); NaN where either mask is empty.

    HD95: the 95th percentile of the distances of both surfaces together (linear between ranks).
    Average: the mean of the two means, from prediction to target and back.
    """
    predicted, target = predicted.astype(bool), target.astype(bool)
    if not (predicted.any() and target.any()):
        return float("nan"), float("nan")
    box = ndimage.find_objects((predicted | target).astype(np.uint8))[0]
    surfaces = [surface(mask[box]) for mask in (predicted, target)]
    distances = [
        ndimage.distance_transform_edt(~second, spacing)[first]
        for first, second in (surfaces, surfaces[::-1])
    ]
    hd95 = float(np.percentile(np.concatenate(distances), 95))
    return hd95, float(np.mean([d.mean() for d in distances]))


def surface(mask: np.ndarray) -> np.ndarray:
    """Return the surface voxels of a bool mask of any number of axes."""
    return mask & ~ndimage.binary_erosion(mask)
