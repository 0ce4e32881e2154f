"""Whether a validation split is large enough for its scores to mean much."""

from collections.abc import Iterable, Sequence

from util.errors import first_of

MIN_IMAGES = 10
"""Fewer validation images are few."""
MIN_MASKS_PER_CLASS = 3
"""A class in fewer of them is scored on almost nothing."""


def too_few(images: int, names: Sequence[str], showing: Iterable[int] | None) -> str:
    """What a validation split has too few of, in a line; '' where it has enough.

    Args:
        images: number of validation images.
        names: of the classes.
        showing: number of validation images that show each class; None: unknown.
    """
    found = []
    if images < MIN_IMAGES:
        found.append(
            f"{images} validation image{'s' * (images != 1)}, expected at least {MIN_IMAGES}"
        )
    pairs = zip(names, () if showing is None else showing, strict=False)
    if rare := [f"{name} ({count})" for name, count in pairs if count < MIN_MASKS_PER_CLASS]:
        found.append(f"fewer than {MIN_MASKS_PER_CLASS} validation images show {first_of(rare, 5)}")
    if not found:
        return ""
    return (
        f"{'; '.join(found)}: scores are uncertain. Fix: validate on more images, or "
        "cross-validate: python -m tools.splits make --config CONFIG --folds 5 --out FOLDER"
    )
