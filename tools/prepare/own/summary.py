"""Report of `tools.prepare init` on images and masks."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dataset.mask_files import code_of
from tools.prepare.own.bands import ImageFile, Kind
from tools.prepare.own.classes import IGNORED
from tools.prepare.own.mask_values import Value
from tools.prepare.own.match import Matched, Parts
from tools.prepare.own.survey import MaskFile, Masks
from util.config.label_map import OTHER
from util.tables import text_table

INDENT = 9 * " "
MAX_ROWS = 64
OTHERS = 12
FEW = 8
"""Number of masks up to which all are named."""


def summary(
    matched: Matched,
    parts: Parts,
    images: Sequence[ImageFile],
    kind: Kind,
    masks: Masks,
    files: Sequence[MaskFile],
    mapped: bool,
) -> str:
    """Describe images and masks in a few lines."""
    veiled, void = sum(file.is_veiled for file in files), sum(file.void for file in files)
    lone, suffix = len(matched.without_mask), matched.suffix
    notes = [
        f"{lone} without a mask are unlabelled" if lone else "",
        f"{matched.spare_masks} masks without an image are left out" if matched.spare_masks else "",
        f"names of masks end in {suffix}" if suffix else "",
        f"{void} pixels of masks have no data (nodata value, mask or alpha of the file): ignored"
        if void
        else "",
        f"{veiled} masks have pixels that are transparent in part: their colour counts"
        if veiled
        else "",
    ]
    pairs = parts.with_masks()
    codes = "colours" if masks.in_colour else "values"
    found = f"{codes} mapped to classes" if mapped else "class indices as they are"
    lines = [
        f"images   {len(pairs)} with masks ({suffixes(image for image, _ in pairs)}), "
        f"{sizes(images)}, {kind}",
        f"masks    {suffixes(mask for _, mask in pairs)}, mode {', '.join(masks.modes)}: {found}",
        *(f"         {note}" for note in notes if note),
    ]
    return "\n".join(lines)


def sizes(images: Sequence[ImageFile]) -> str:
    """Return the size of all images, or the smallest and the largest."""
    found = sorted({image.size for image in images}, key=lambda size: size[0] * size[1])
    texts = [f"{w}x{h}" for w, h in found]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]} ({len(texts)} sizes)"


def suffixes(files: Iterable[Path]) -> str:
    return ", ".join(sorted({file.suffix.lower() for file in files}))


def meanings(labels: Mapping[str, str]) -> dict[int, str]:
    """Return the class of each value or colour by its code, for `table`."""
    own = {code_of(key): label for key, label in labels.items() if key != OTHER}
    return {code: "(ignored)" if label == IGNORED else label for code, label in own.items()}


def table(values: Mapping[int, Value], meaning: Mapping[int, str], parts: Parts) -> str:
    """Return a line for each value or colour: class, share, number of masks, and the names of the
    masks of a rare one. Values without a meaning of their own come last."""
    files = [mask for _, mask in parts.with_masks()]
    rest = sorted(values.keys() - meaning.keys(), key=lambda code: -values[code].share)
    codes = [*[code for code in values if code in meaning][:MAX_ROWS], *rest[:OTHERS]]
    rows = [["value", "class", "pixels", "training masks", "validation masks"]]
    for code in codes:
        key, share, held, _ = values[code]
        training = sum(number < len(parts.labeled) for number in held)
        validation = sum(number < len(parts.labeled) + len(parts.val) for number in held) - training
        names = [files[number].name for number in held]
        where = f"in {', '.join(names)}" if len(names) <= FEW else f"such as {names[0]}"
        rare = code not in meaning or len(held) == 1
        numbers = f"{share:.2%}", str(training), str(validation)
        rows.append([key, meaning.get(code, "-"), *numbers, *[where] * rare])
    left = len(values) - len(codes)
    more = f"\n{INDENT}... and {left} more" if left else ""
    return text_table(rows, "<<>>><", INDENT) + more
