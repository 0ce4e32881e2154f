"""What `tools.prepare init` found, as text."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_tools.prepare.classes import Classes
from data_tools.prepare.match import Matched, Parts
from data_tools.prepare.survey import ImageFile, Masks
from dataset.labels import key_of
from util.config import IGNORE

MAX_ROWS = 40


def summary(
    matched: Matched, parts: Parts, images: Sequence[ImageFile], masks: Masks, classes: Classes
) -> str:
    """Images, masks and a table of classes; the first masks are those of `parts.labeled`."""
    lone, suffix = len(matched.without_mask), matched.suffix
    notes = [
        f"{lone} without a mask are unlabelled" if lone else "",
        f"{matched.spare_masks} masks without an image are left out" if matched.spare_masks else "",
        f"names of masks end in {suffix}" if suffix else "",
    ]
    pairs = [*parts.labeled, *parts.val]
    kind = "colours" if masks.in_colour else "values"
    found = f"{kind} mapped to classes" if classes.mapped else "class indices as they are"
    lines = [
        f"images   {len(pairs)} with masks ({suffixes(image for image, _ in pairs)}), "
        f"{sizes(images)}",
        f"masks    {suffixes(mask for _, mask in pairs)}, mode {', '.join(masks.modes)}: {found}",
        *(f"         {note}" for note in notes if note),
        *_table(masks, classes, len(parts.labeled)),
    ]
    return "\n".join(lines)


def pixel_shares(masks: Masks) -> dict[int, float]:
    """The share of all pixels by value or colour."""
    pixels: Counter[int] = Counter()
    for counts in masks.pixels:
        pixels.update(counts)
    return {code: count / pixels.total() for code, count in pixels.items()}


def sizes(images: Sequence[ImageFile]) -> str:
    """The size of all images, or the smallest and the largest."""
    found = sorted({image.size for image in images}, key=lambda size: size[0] * size[1])
    texts = [f"{w}x{h}" for w, h in found]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]} ({len(texts)} sizes)"


def suffixes(files: Iterable[Path]) -> str:
    return ", ".join(sorted({file.suffix.lower() for file in files}))


def _table(masks: Masks, classes: Classes, training: int) -> list[str]:
    """A line for each value or colour: its class, its share, and in how many masks it is."""
    shares = pixel_shares(masks)
    in_masks = [
        Counter(code for pixels in part for code in pixels)
        for part in (masks.pixels[:training], masks.pixels[training:])
    ]
    width = max(len(name) for name in [*classes.names, "(ignored)"])
    head = "colour" if masks.in_colour else "value"
    rows = [f"         {head:<12} {'class':<{width}}  pixels  training masks  validation masks"]
    for code, label in list(classes.of.items())[:MAX_ROWS]:
        name = "(ignored)" if label == IGNORE else classes.names[label]
        rows.append(
            f"         {key_of(code, masks.in_colour):<12} {name:<{width}} {shares[code]:>7.2%}"
            f"  {in_masks[0][code]:>14}  {in_masks[1][code]:>16}"
        )
    if len(classes.of) > MAX_ROWS:
        rows.append(f"         ... and {len(classes.of) - MAX_ROWS} more")
    return rows
