"""Write a config and split files for images and masks of your own.

Classes, bands and settings follow from the content of the files."""

import argparse
import shlex
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dataset.image_files import MAX_MEGAPIXELS
from dataset.val_size import too_few
from tools.prepare.annotations import write as annotations
from tools.prepare.own.bands import Bands, ImageFile, measure
from tools.prepare.own.classes import Classes, Doubt, Named, choose_classes, parse_classes
from tools.prepare.own.config_text import FEW_PIXELS, commands, config_text, rare_classes
from tools.prepare.own.lists import lines_of, shortest, write_new
from tools.prepare.own.look import look
from tools.prepare.own.mask_values import Value, values_in_use
from tools.prepare.own.match import Matched, Parts, absolute, later_images, match, part
from tools.prepare.own.settings import (
    PRESETS,
    Settings,
    choose_preset,
    choose_settings,
    find_pretrained,
)
from tools.prepare.own.summary import meanings, summary, table
from tools.prepare.own.survey import MaskFile, Masks, together
from tools.prepare.own.time_budget import schedule_for, seconds_of
from util.config.label_map import WORDS
from util.config.loading import load_config
from util.errors import UserError, first_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of images")
    add("--second", type=Path, help="folder of the later images of pairs, named as the earlier "
        "ones in --images; masks then show changes (default: no pairs)")  # fmt: skip
    add("--masks", type=Path, help="folder of masks, named as their images (default: --images)")
    annotations.add_arguments(parser)
    add("--image-pattern", default="*", metavar="PATTERN", help="pattern of the images' names, "
        "such as '*_image.png' or '*.bmp'; images and masks match by *")  # fmt: skip
    add("--mask-pattern", default="*", metavar="PATTERN", help="pattern of the masks' names")
    add("--unlabeled", type=Path, help="folder of further images, without masks (default: "
        "none)")  # fmt: skip
    add("--val", nargs="+", metavar="SHARE|DIR", help="images to validate on: a share of the "
        "labelled ones, a folder in --images, or a folder of images and one of masks (default: the "
        "folder val in --images, else 0.1, and where images are few up to 10, a third of them at "
        "most); a folder test in --images becomes the test split")  # fmt: skip
    add("--out", type=Path, required=True, help="config file to write")
    add("--lists", type=Path, help="folder for the split files (default: splits/<name of the "
        "config>)")  # fmt: skip
    add("--classes", help="class names in the order of the values (background,road,roof), or by "
        "value or colour (0=background,255=road; 0,0,0=background,255,0,0=road); several may "
        "share a name; `ignore` is one, and other=NAME, other=ignore or other=nearest is for the "
        "rest (default: found in the masks)")  # fmt: skip
    add(
        "--ignore",
        nargs="+",
        default=[],
        metavar="VALUE",
        help="values or colours (r,g,b) to ignore; other: strays that are hardly classes",
    )
    add("--preset", choices=PRESETS, help="size of network and crops: small for a CPU, base for a "
        "GPU, large for DINOv2, the strongest (default: small, or base with a GPU)")  # fmt: skip
    add("--time-budget", metavar="TIME", help="train as many epochs as fit TIME on this machine "
        "(90min, 2h, 1d), by a measured step (default: the preset's epochs)")  # fmt: skip
    add("--max-megapixels", type=int, default=MAX_MEGAPIXELS, metavar="N",
        help="refuse images and masks of more than N million pixels")  # fmt: skip
    add("--skip-bad", action="store_true", help="go on without images that cannot be read or do "
        "not fit their masks, and list them")  # fmt: skip
    add("--seed", type=int, default=0, help="seed that draws the validation images")
    add("--force", action="store_true", help="replace the config and the split files; the old "
        "ones are kept as FILE.old")  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Look at the data, write config and split files, and report what was found.

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


class Found(NamedTuple):
    """Content of all images and masks."""

    matched: Matched
    parts: Parts
    later: dict[Path, Path]
    """The later image of each earlier one; empty where images are no pairs."""
    images: list[ImageFile]
    files: list[MaskFile]
    bands: Bands
    masks: Masks
    values: dict[int, Value]
    classes: Classes

    def script(self, settings: Settings) -> str | None:
        """Return the script of the method to try; None without unlabelled images."""
        return settings.preset.script if self.parts.unlabeled else None


def _write_config(
    options: argparse.Namespace, lists: Path, there: list[Path], named: Named
) -> None:
    """Look at images and masks; write the config, keeping the files that are `there` as .old."""
    found = _survey(options, named)
    preset = options.preset or choose_preset()
    pretrained = find_pretrained(PRESETS[preset].model["backbone"])
    largest = max(len(found.parts.labeled), len(found.parts.unlabeled))
    settings = choose_settings(found.images, largest, preset, pretrained)
    lines, root = lines_of(found.parts, found.later, lists)
    data: dict[str, Any] = {"name": options.out.stem, "root": shortest(root)}
    data |= {path.stem: str(path) for path in lines}
    data |= {"pair": "column", "scale": [0.8, 1.2], "grey_probability": 0} if found.later else {}
    if options.max_megapixels != MAX_MEGAPIXELS:
        data["max_megapixels"] = options.max_megapixels

    def text() -> str:
        return config_text(options.out, data, found.bands, found.classes, found.values, settings)

    written = text()
    for path in there:
        path.replace(path.with_name(path.name + ".old"))
    write_new(options.out, written, lines)
    load_config(options.out)  # the written file can be read
    hours = None
    if options.time_budget is not None:
        script = found.script(settings) or "supervised"
        epochs, length, hours = schedule_for(options.out, script, options.time_budget)
        settings = settings._replace(epochs=epochs, epoch_length=length)
        options.out.write_text(text(), encoding="utf-8")
    _report_data(options, lists, found)
    _report_config(options, found, settings, preset, hours)


def _survey(options: argparse.Namespace, named: Named) -> Found:
    """Read all files and choose the classes."""
    parts, later, matched = _divided(options)
    parts, images, files = look(parts, later, options, lambda bad: _divided(options, bad)[0])
    bands = measure(images)
    told = {"," in key for key in named.labels if key not in WORDS}
    masks = together(files, told.pop() if len(told) == 1 else None)
    values = values_in_use(masks)
    if later and not options.annotations:
        named = named._replace(of_change=True)
    classes = _chosen(masks, values, named, parts)
    return Found(matched, parts, later, images, files, bands, masks, values, classes)


def _report_data(options: argparse.Namespace, lists: Path, found: Found) -> None:
    """Print what the images and masks hold."""
    parts, classes = found.parts, found.classes
    print(summary(found.matched, parts, found.images, found.bands.kind, found.masks, found.files,
                  classes.mapped))  # fmt: skip
    if found.later:
        print(f"pairs    of two dates: {options.images}, {options.second}")
    print(table(found.values, meanings(classes.labels), parts))
    if few := too_few(len(parts.val), classes.names, _showing(found.masks, classes, parts)):
        print(f"warning  {few}")
    sets = {k: v for k, v in parts._asdict().items() if v or k != "test"}
    print(f"lists    {lists}/: {', '.join(f'{len(v)} {k}' for k, v in sets.items())}")


def _report_config(
    options: argparse.Namespace,
    found: Found,
    settings: Settings,
    preset: str,
    hours: float | None,
) -> None:
    """Print the chosen settings and the next commands."""
    script, model = found.script(settings), settings.preset.model
    print(
        f"config   {options.out}: preset {preset}, {model['backbone']}, crop "
        f"{settings.crop_size}, {settings.epochs} epochs, evaluation {settings.mode}"
    )
    if model["pretrained"] == "none":
        print("weights  none found, and no network: training starts from random weights and scores "
              "lower; see the comment in the config")  # fmt: skip
    if hours is not None:
        print(f"time     about {hours:.1f} h with {script or 'supervised'}.py on this machine")
    if rare := rare_classes(found.classes, found.values):
        print(f"rare     {first_of([*rare], 5)}: less than {FEW_PIXELS:.0%} of the pixels; try "
              "--set criterion.class_weights=auto")  # fmt: skip
    if not options.classes:
        masks_in = shortest(options.masks) if options.annotations else None
        print(f"names    {_again(found.classes.labels, masks_in)} --force")
    check, *train = commands(options.out, script)
    print(f"check    {check}\nbaseline {train[0]}  # first with --dry-run")
    if script:
        print(f"method   {train[1]}")
    else:
        print("method   none without unlabelled images; name a folder of them by --unlabeled")


def _divided(
    options: argparse.Namespace, bad: Container[Path] = ()
) -> tuple[Parts, dict[Path, Path], Matched]:
    """Match images and masks and divide them into sets, without `bad` images; with the later image
    of each earlier one, none where images are no pairs."""
    images, masks = absolute(options.images), absolute(options.masks or options.images)
    patterns = options.image_pattern, options.mask_pattern
    matched = match(images, masks, patterns)
    pairs = [pair for pair in matched.pairs if pair[0] not in bad]
    parts = part(matched._replace(pairs=pairs), images, options.unlabeled, options.val,
                 options.seed, patterns)  # fmt: skip
    parts = Parts(*([s for s in some if s[0] not in bad] for some in parts))  # type: ignore[arg-type]
    later = {}
    if options.second is not None:
        skip = masks if masks != images else None
        later = later_images(parts, images, absolute(options.second), skip, options.image_pattern)
    return parts, later, matched


def _chosen(masks: Masks, values: dict[int, Value], named: Named, parts: Parts) -> Classes:
    """Choose the classes; where they are in doubt, print the values and a command that names
    them."""
    try:
        return choose_classes(masks, values, named)
    except Doubt as doubt:
        print(table(values, meanings(doubt.labels), parts))
        print(f"such as  {_again(doubt.labels)}")
        raise UserError(
            f"{doubt}; repeat with the command above, corrected where it is wrong"
        ) from None


def _showing(masks: Masks, classes: Classes, parts: Parts) -> list[int]:
    """Return the number of validation images that show each class."""
    first = len(parts.labeled)
    shown = [
        {classes.of.get(code, classes.other) for code in pixels}
        for pixels in masks.pixels[first : first + len(parts.val)]
    ]
    return [sum(label in found for found in shown) for label in range(len(classes.names))]


def _again(labels: Mapping[str, str], masks: str | None = None) -> str:
    """Return this command with all classes named; with masks instead of annotations."""
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
