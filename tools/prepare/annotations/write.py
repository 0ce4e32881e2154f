"""Masks from annotations: read, match with images, draw, and write into a new folder."""

import argparse
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, count
from pathlib import Path

from PIL import Image

from dataset.folders import files_by_stem
from dataset.image_files import image_size, is_in_stored_orientation
from dataset.threads import try_in_threads
from tools.prepare.annotations.draw import (
    ClassTable,
    MaskToDraw,
    Totals,
    class_table,
    draw,
    labels_of,
    sum_up,
)
from tools.prepare.annotations.find import read_annotations
from tools.prepare.annotations.match import match_annotations
from tools.prepare.annotations.types import Annotations, ImageAnnotation, Size
from tools.prepare.faults import raise_all_faults, require_results
from tools.prepare.own.classes import IGNORED, ClassOptions
from tools.prepare.own.match import absolute
from util.config.types import IGNORE
from util.errors import UserError, counted, join_first
from util.tables import text_table

NAMED = 8
"""Names in a line of the report."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--annotations", type=Path, metavar="PATH", help="file or folder of annotations instead of "
        "masks: JSON of COCO, LabelMe, Label Studio or VIA; YOLO's text files; masks with "
        "labelmap.txt or VOC's palette; .mat arrays; masks are written to the new folder --masks "
        "(default: IMAGES_masks)")  # fmt: skip
    add("--unannotated", choices=("background", "ignore"), default="background",
        help="pixels that no annotated object covers: class 0 (default) or ignored")  # fmt: skip
    add("--empty", choices=("background", "unlabelled"), help="images annotated without "
        "an object (default: background if they have a label file of their own, else "
        "unlabelled)")  # fmt: skip


@contextmanager
def annotated_masks(args: argparse.Namespace) -> Iterator[tuple[Path, ClassOptions]]:
    """Write a new folder of masks, and yield it with its classes; remove it on an error inside.

    Raises `UserError` for annotations that cannot be used, and for a folder that exists.
    """
    if args.classes or args.ignore:
        raise UserError(
            "--classes, --ignore: classes come from --annotations. Fix: to merge or rename them, "
            "repeat with --masks FOLDER, the folder of masks that is written"
        )
    folder, named = _write_masks(args)
    try:
        yield folder, named
    except BaseException:
        shutil.rmtree(folder)
        raise


def _write_masks(args: argparse.Namespace) -> tuple[Path, ClassOptions]:
    root = absolute(args.images)
    folder = _new_folder(args.masks, root)
    images = files_by_stem(root, pattern=args.image_pattern)
    annotations = read_annotations(absolute(args.annotations), list(images.values()))
    found, lost = match_annotations(annotations.per_image, root, images)
    if not found:
        raise UserError(
            f"--annotations {args.annotations}: none is of an image in {args.images}; "
            f"expected names such as {next(iter(images.values())).relative_to(root)}, found "
            f"{lost[0] if lost else 'none'}"
        )
    without_objects = _unlabelled(found, args)
    tasks = _tasks({key: p for key, p in found.items() if key not in without_objects}, images)
    if not tasks:
        raise UserError(f"--annotations {args.annotations}: {annotations.format} without objects")
    used = require_results(try_in_threads(
        labels_of, [task.annotation for task in tasks], [task.image for task in tasks], "labels"
    ))  # fmt: skip
    table = class_table(annotations, used, args.unannotated)
    totals = _draw_all(tasks, table, folder)
    lines = report(annotations, table, totals, len(tasks))
    for title, names, meaning in (
        ("no image", lost, "annotated, but not in --images"),
        ("no objects", without_objects, "without objects, unlabelled (or --empty background)"),
        ("unlabelled", [p.relative_to(root) for k, p in images.items() if k not in found],
         "without annotation"),
    ):  # fmt: skip
        if names:
            lines.append((title, f"{len(names)} {meaning}: {_some(names)}"))
    lines.append(("written", f"{folder}: {counted(len(tasks), 'mask')}"))
    print(*(f"{title:<10} {text}" for title, text in lines), sep="\n")
    labels = {str(number): name for number, name in enumerate(table.names)}
    return folder, ClassOptions(table.names, labels | {str(IGNORE): IGNORED})


def _unlabelled(found: Mapping[str, ImageAnnotation], args: argparse.Namespace) -> list[str]:
    """Return the keys of images without objects that count as unlabelled."""
    empty = [key for key, p in found.items() if not (p.regions or p.read_label_image)]
    if args.unannotated == "ignore":
        return empty  # their masks would be ignored everywhere
    if args.empty:
        return empty if args.empty == "unlabelled" else []
    return [key for key in empty if not found[key].is_annotated]


def _tasks(found: Mapping[str, ImageAnnotation], images: Mapping[str, Path]) -> list[MaskToDraw]:
    """Return the masks to draw; images that cannot be opened are reported later, by `init`.

    Raises `UserError`, once all faults are printed, for annotations of another size than images.
    """
    tasks: list[MaskToDraw] = []
    faults: list[UserError] = []
    for key, image in images.items():
        if (annotation := found.get(key)) is None:
            continue
        try:
            size = image_size(image)
        except UserError:
            continue
        if annotation.size and annotation.size != size:
            faults.append(_size_fault(annotation, annotation.size, image, size))
        tasks.append(MaskToDraw(key, image, annotation, size))
    raise_all_faults(faults)
    return tasks


def _size_fault(annotation: ImageAnnotation, annotated: Size, image: Path, size: Size) -> UserError:
    hint = ". Fix: annotate the image as it is, or resize it"
    if is_in_stored_orientation(image, size, annotated):
        hint = (
            "; its EXIF orientation turns the image. Fix: remove the orientation, or turn the "
            "annotation"
        )
    return UserError(
        f"{annotation.file}: '{annotation.names[0]}' has {annotated[0]}x{annotated[1]} pixels, "
        f"{image} has {size[0]}x{size[1]}{hint}"
    )


def _draw_all(tasks: list[MaskToDraw], table: ClassTable, folder: Path) -> Totals:
    """Write all masks, or none."""
    partial_folder = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    try:
        partial_folder.mkdir(parents=True)
        one = partial(_draw_one, table=table, folder=partial_folder)
        results = require_results(try_in_threads(one, tasks, [t.image for t in tasks], "masks"))
        partial_folder.rename(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}). Fix: name a new folder by --masks"
        ) from None
    finally:
        if partial_folder.exists():
            shutil.rmtree(partial_folder)
    return sum_up(results)


def _draw_one(task: MaskToDraw, table: ClassTable, folder: Path) -> Totals:
    mask, totals = draw(task, table)
    path = folder / f"{task.key}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if table.colours:
        image.putpalette(table.palette().tobytes())
    image.save(path)
    return totals


def _new_folder(wanted: Path | None, images: Path) -> Path:
    """Return the folder to write, which does not exist yet or is empty."""
    if wanted is None:
        first = images.with_name(f"{images.name}_masks")
        more = (images.with_name(f"{first.name}_{number}") for number in count(2))
        return next(folder for folder in chain([first], more) if not folder.exists())
    folder = absolute(wanted)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(
            f"--masks {wanted}: exists already; expected a new folder for the masks of "
            "--annotations"
        )
    return folder


def report(
    annotations: Annotations, table: ClassTable, totals: Totals, masks: int
) -> list[tuple[str, str]]:
    """Return titles and texts: classes with their counts, overlaps, and what was skipped."""
    objects = totals.objects.total()
    rows = [[n, str(totals.objects[n] or "-"), str(totals.images[n])] for n in table.names]
    classes = text_table([["class", "objects", "images"], *rows], "<>>", 11 * " ").strip()
    counts = f"images: {masks}" + f", objects: {objects}" * (objects > 0)
    lines = [("annotated", f"{annotations.format}; {counts}"), ("", classes)]
    if objects:
        share = totals.overlapping / totals.pixels
        rest = "ignored (255)" if table.rest == IGNORE else f"class 0, {table.names[0]}"
        lines.append(("overlaps", f"{totals.overlapping} pixels ({share:.2%}) are covered by "
                      "objects of several classes: the smaller object is on top"))  # fmt: skip
        lines.append(("rest", f"pixels without object: {rest}"))
    if table.unused:
        meaning = (
            "declared, without objects, no class: masks of another annotation file may number the "
            "classes differently"
        )
        lines.append(("unused", f"{len(table.unused)} {meaning}: {_some(table.unused)}"))
    if skipped := [f"{what}: {n}" for what, n in annotations.skipped().items()]:
        lines.append(("skipped", "; ".join(skipped)))
    if totals.invisible:
        lines.append(("empty", f"objects that cover no pixel: {totals.invisible}"))
    return lines


def _some(names: Sequence[object]) -> str:
    return join_first([str(name) for name in names], NAMED)
