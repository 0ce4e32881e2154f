"""A config and lists for images and masks of one's own: looks at the files, then writes."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dataset.image_files import MAX_MEGAPIXELS, size_mismatch
from dataset.mask_files import code_of
from dataset.reader import refuse_other_size
from dataset.split_files import list_line, write_lists
from dataset.val_size import too_few
from tools.prepare.annotations import write as annotations
from tools.prepare.own.bands import ImageFile, look_at_image, measure
from tools.prepare.own.classes import IGNORED, Classes, Doubt, Named, choose_classes, parse_classes
from tools.prepare.own.config_text import FEW_PIXELS, commands, config_text, rare_classes
from tools.prepare.own.mask_values import Value, values_in_use
from tools.prepare.own.match import Parts, absolute, later_images, match, part
from tools.prepare.own.settings import PRESETS, choose_preset, choose_settings, find_pretrained
from tools.prepare.own.summary import summary, table
from tools.prepare.own.survey import (
    MaskFile,
    Masks,
    look_at,
    look_at_mask,
    refuse_all,
    together,
)
from tools.prepare.own.time_budget import schedule_for, seconds_of
from util.config.label_map import OTHER, WORDS
from util.config.loading import load_config
from util.errors import UserError, first_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of images")
    add("--second", type=Path, help="of pairs: folder of the later images, named as the earlier "
        "ones in --images; masks then show what changed (default: no pairs)")  # fmt: skip
    add("--masks", type=Path, help="folder of masks, named as their images (default: --images)")
    annotations.add_arguments(parser)
    add("--image-pattern", default="*", metavar="PATTERN", help="of the images' names, such as "
        "'*_image.png' or '*.bmp': what * stands for pairs them with masks")  # fmt: skip
    add("--mask-pattern", default="*", metavar="PATTERN", help="of the masks' names")
    add("--unlabeled", type=Path, help="folder of further images, without masks (default: "
        "none)")  # fmt: skip
    add("--val", nargs="+", metavar="SHARE|DIR", help="images to validate on: a share of the "
        "labelled ones (default: 0.1, and where these are few up to 10 images, a third of them at "
        "most), a folder in --images, or a folder of images and one of masks")  # fmt: skip
    add("--out", type=Path, required=True, help="config to write")
    add("--lists", type=Path, help="folder for the lists (default: splits/<name of the config>)")
    add("--classes", help="names, in the order of the values (background,road,roof), or of values "
        "or colours (0=background,255=road; 0,0,0=background,255,0,0=road); several may share a "
        "name; also ignore, and other=NAME, other=ignore, other=nearest for the rest "
        "(default: found in the masks)")  # fmt: skip
    add(
        "--ignore",
        nargs="+",
        default=[],
        metavar="VALUE",
        help="values or colours (r,g,b) that do not count; other: those that are hardly classes",
    )
    add("--preset", choices=PRESETS, help="size of network and crops: small for a CPU, base for a "
        "GPU, large for the strongest, DINOv2 (default: small, or base with a GPU)")  # fmt: skip
    add("--time-budget", metavar="TIME", help="as many epochs as this machine trains in TIME "
        "(90min, 2h, 1d), by a measured step (default: the preset's epochs)")  # fmt: skip
    add("--max-megapixels", type=int, default=MAX_MEGAPIXELS, metavar="N",
        help="refuse images and masks of more million pixels")  # fmt: skip
    add("--skip-bad", action="store_true", help="go on without images that cannot be read or do "
        "not fit their masks, and list them")  # fmt: skip
    add("--seed", type=int, default=0, help="of the share of validation images")
    add("--force", action="store_true", help="replace the config and the lists, which are kept as "
        "FILE.old")  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Look at the data, write config and lists, and say what was found.

    Raises `UserError` for data that cannot be trained on and for files that would be overwritten.
    """
    lists = options.lists or Path("splits") / options.out.stem
    outputs = [options.out, *(lists / f"{kind}.txt" for kind in Parts._fields)]
    there = [path for path in outputs if path.exists()]
    if there and not options.force:
        raise UserError(f"{there[0]}: exists already; choose another --out or --lists, or --force")
    if options.time_budget is not None:
        # Refused before the files are looked at.
        options.time_budget = seconds_of(options.time_budget)
    if options.annotations is None:
        _write_config(options, lists, there, parse_classes(options.classes, options.ignore))
        return
    with annotations.annotated_masks(options) as (options.masks, named):
        _write_config(options, lists, there, named)


def _write_config(
    options: argparse.Namespace, lists: Path, there: list[Path], named: Named
) -> None:
    """Look at images and masks; replace the files that are `there`."""
    image_folder = absolute(options.images)
    mask_folder = absolute(options.masks or options.images)
    patterns = options.image_pattern, options.mask_pattern
    matched = match(image_folder, mask_folder, patterns)

    def drawn(bad: Container[Path] = ()) -> Parts:
        pairs = [pair for pair in matched.pairs if pair[0] not in bad]
        kept = matched._replace(pairs=pairs)
        found = part(kept, image_folder, options.unlabeled, options.val, options.seed, patterns)
        return Parts(*([s for s in some if s[0] not in bad] for some in found))  # type: ignore[arg-type]

    parts = drawn()
    later = _later(parts, image_folder, mask_folder, options)
    parts, images, files = _look(
        parts, later, options.max_megapixels, drawn if options.skip_bad else None
    )
    bands = measure(images)
    told = {"," in key for key in named.labels if key not in WORDS}
    masks = together(files, told.pop() if len(told) == 1 else None)
    values = values_in_use(masks)
    if later and not options.annotations:
        named = named._replace(of_change=True)
    classes = _chosen(masks, values, named, parts)
    preset = options.preset or choose_preset()
    pretrained = find_pretrained(PRESETS[preset].model["backbone"])
    largest = max(len(parts.labeled), len(parts.unlabeled))
    settings = choose_settings(images, largest, preset, pretrained)

    lines, root = _lines(parts, later, lists)
    data: dict[str, Any] = {"name": options.out.stem, "root": _shortest(root)}
    data |= {path.stem: str(path) for path in lines}
    data |= {"pair": "column", "scale": [0.8, 1.2], "grey_probability": 0} if later else {}
    if options.max_megapixels != MAX_MEGAPIXELS:
        data["max_megapixels"] = options.max_megapixels
    text = config_text(options.out, data, bands, classes, values, settings)
    for path in there:
        path.replace(path.with_name(path.name + ".old"))
    _write(options.out, text, lines)
    load_config(options.out)  # what was written can be read
    if options.time_budget is not None:
        script = settings.preset.script if "unlabeled" in data else "supervised"
        epochs, length, hours = schedule_for(options.out, script, options.time_budget)
        settings = settings._replace(epochs=epochs, epoch_length=length)
        text = config_text(options.out, data, bands, classes, values, settings)
        options.out.write_text(text, encoding="utf-8")
    print(summary(matched, parts, images, bands.kind, masks, files, classes.mapped))
    if later:
        print(f"pairs    of two dates: {options.images}, {options.second}")
    print(table(values, _meaning(classes.labels), parts))
    if few := too_few(len(parts.val), classes.names, _showing(masks, classes, parts)):
        print(f"warning  {few}")
    print(f"lists    {lists}/: {', '.join(f'{len(v)} {k}' for k, v in parts._asdict().items())}")
    print(
        f"config   {options.out}: preset {preset}, {settings.preset.model['backbone']}, crop "
        f"{settings.crop_size}, {settings.epochs} epochs, evaluation {settings.mode}"
    )
    if pretrained == "none":
        print("weights  none found, and no network: training starts from random weights and scores "
              "lower; see the comment in the config")  # fmt: skip
    if options.time_budget is not None:
        print(f"time     about {hours:.1f} h with {script}.py on this machine")
    if rare := rare_classes(classes, values):
        print(f"rare     {first_of([*rare], 5)}: less than {FEW_PIXELS:.0%} of the pixels; try "
              "--set criterion.class_weights=auto")  # fmt: skip
    if not options.classes:
        masks_in = _shortest(options.masks) if options.annotations else None
        print(f"names    {_again(classes.labels, masks_in)} --force")
    check, *train = commands(options.out, settings.preset.script if "unlabeled" in data else None)
    print(f"check    {check}\nbaseline {train[0]}  # first with --dry-run")
    for command in train[1:]:
        print(f"method   {command}")


def _chosen(masks: Masks, values: dict[int, Value], named: Named, parts: Parts) -> Classes:
    """The classes; where they are in doubt, prints what was found and how to tell."""
    try:
        return choose_classes(masks, values, named)
    except Doubt as doubt:
        print(table(values, _meaning(doubt.labels), parts))
        print(f"such as  {_again(doubt.labels)}")
        raise UserError(
            f"{doubt}; repeat with the command above, corrected where it is wrong"
        ) from None


def _showing(masks: Masks, classes: Classes, parts: Parts) -> list[int]:
    """The number of validation images that show each class."""
    shown = [
        {classes.of.get(code, classes.other) for code in pixels}
        for pixels in masks.pixels[len(parts.labeled) :]
    ]
    return [sum(label in found for found in shown) for label in range(len(classes.names))]


def _meaning(labels: Mapping[str, str]) -> dict[int, str]:
    """What is taken for what, by value."""
    own = {code_of(key): label for key, label in labels.items() if key != OTHER}
    return {code: "(ignored)" if label == IGNORED else label for code, label in own.items()}


def _again(labels: Mapping[str, str], masks: str | None = None) -> str:
    """This command with its classes named one by one; with masks in place of annotations."""
    kept, skipped = [], False
    left_out = {"--classes", "--ignore", "--force"}
    if masks:
        left_out |= {"--annotations", "--unannotated", "--empty", "--masks"}
    for argument in sys.argv[1:]:
        if argument.startswith("--"):
            skipped = argument.partition("=")[0] in left_out
        if not skipped:
            kept.append(argument)
    kept += ["--masks", masks] if masks else []
    classes = ",".join(f"{key}={label}" for key, label in labels.items())
    return shlex.join(["python", "-m", "tools.prepare", *kept, "--classes", classes])


def _later(
    parts: Parts, images: Path, masks: Path, options: argparse.Namespace
) -> dict[Path, Path]:
    """The later image of each earlier one; none where images are no pairs."""
    if options.second is None:
        return {}
    skip = masks if masks != images else None
    return later_images(parts, images, absolute(options.second), skip, options.image_pattern)


def _look(
    parts: Parts,
    later: Mapping[Path, Path],
    max_megapixels: int,
    without: Callable[[Container[Path]], Parts] | None,
) -> tuple[Parts, list[ImageFile], list[MaskFile]]:
    """All images and all masks, those on which is trained first.

    Raises `UserError`, once all faults are printed, for files that cannot be used and for sizes
    that disagree; or else returns the parts `without` such images.
    """
    image_of = partial(look_at_image, max_megapixels=max_megapixels)
    mask_of = partial(look_at_mask, max_megapixels=max_megapixels)
    samples = [*parts.labeled, *parts.val, *parts.unlabeled]
    first = [image for image, *_ in samples]
    images = look_at(first, image_of, "images")
    masks = look_at([mask for _, *more in samples for mask in more], mask_of, "masks")
    second = look_at([later[image] for image in first if later], image_of, "later images")
    faults: dict[Path, list[UserError]] = {}
    for image, *more in samples:
        looked = [images[image], *(masks[mask] for mask in more)]
        looked += [second[later[image]]] if later else []
        wrong = [found for found in looked if isinstance(found, UserError)]
        if wrong := wrong or _sizes_differ(looked):
            faults[image] = wrong
    named = [fault for wrong in faults.values() for fault in wrong]
    if without is None:
        refuse_all(named)
    elif named:
        print(*named, sep="\n")
        print(f"skipped  {len(faults)} of {len(samples)} images, for the reasons above")
        parts = without(faults)
        samples = [*parts.labeled, *parts.val, *parts.unlabeled]
    kept = [image for image, *_ in samples]
    good = [*(images[image] for image in kept), *(second[later[image]] for image in kept if later)]
    return (
        parts,
        [found for found in good if isinstance(found, ImageFile)],
        [
            found
            for _, mask in (*parts.labeled, *parts.val)
            if isinstance(found := masks[mask], MaskFile)
        ],
    )


def _sizes_differ(looked: Sequence[ImageFile | MaskFile | UserError]) -> list[UserError]:
    """What is wrong with the sizes of the files of a sample, the first of which is an image."""
    found: list[UserError] = []
    image, *others = [file for file in looked if not isinstance(file, UserError)]
    for other in others:
        if other.size == image.size:
            continue
        if isinstance(other, MaskFile):
            found.append(size_mismatch(image.path, other.path, image.size, other.size))
            continue
        try:
            refuse_other_size([image.path, other.path], [image.size, other.size])
        except UserError as error:
            found.append(error)
    return found


def _shortest(path: Path) -> str:
    """A path as the working directory sees it, where it is below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _lines(
    parts: Parts, later: Mapping[Path, Path], folder: Path
) -> tuple[dict[Path, list[str]], Path]:
    """The lines of the lists that have images, by their paths; and what all files lie below."""
    listed = {
        folder / f"{kind}.txt": [
            (image, *([later[image]] if later else []), *mask) for image, *mask in samples
        ]
        for kind, samples in parts._asdict().items()
        if samples
    }
    files = [file for samples in listed.values() for paths in samples for file in paths]
    root = Path(os.path.commonpath({file.parent for file in files}))
    lines = {
        path: [list_line(*(f.relative_to(root).as_posix() for f in paths)) for paths in samples]
        for path, samples in listed.items()
    }
    return lines, root


def _write(out: Path, text: str, lists: dict[Path, list[str]]) -> None:
    """Write config and lists, or none of them."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from None
    try:
        write_lists(lists)
    except UserError:
        out.unlink()
        raise
