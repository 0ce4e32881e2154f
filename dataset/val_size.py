"""The size of a validation split: warn where its scores are uncertain."""

from collections.abc import Iterable, Sequence

from util.errors import first_of

MIN_IMAGES = 10
"""Least number of validation images without a warning."""
MIN_MASKS_PER_CLASS = 3
"""Least number of validation images per class without a warning."""


def too_few(images: int, names: Sequence[str], showing: Iterable[int] | None) -> str:
    """Warn of a validation split with too few images, or too few of a class; "" for a large one.

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
