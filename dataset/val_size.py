"""Whether a validation split is large enough for its scores to mean much."""

from collections.abc import Iterable, Sequence

from util.errors import first_of

IMAGES = 10
"""Fewer validation images are few."""
SHOWING = 3
"""A class in fewer of them is scored on almost nothing."""


def too_few(images: int, names: Sequence[str], showing: Iterable[int] | None) -> str:
    """What a validation split has too few of, in a line; '' where it has enough.

    Args:
        images: number of validation images.
        names: of the classes.
        showing: number of validation images that show each class; None: unknown.
    """
    found = []
    if images < IMAGES:
        found.append(f"{images} validation image{'s' * (images != 1)}, expected at least {IMAGES}")
    pairs = zip(names, () if showing is None else showing, strict=False)
    if rare := [f"{name} ({count})" for name, count in pairs if count < SHOWING]:
        found.append(f"fewer than {SHOWING} validation images show {first_of(rare, 5)}")
    if not found:
        return ""
    return (
        f"{'; '.join(found)}: scores are uncertain. Fix: validate on more images, or "
        "cross-validate: python -m tools.splits make --config CONFIG --folds 5 --out FOLDER"
    )
