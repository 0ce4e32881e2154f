"""Write a config and split files for images and masks of your own.

Classes, bands and settings follow from the content of the files."""

import argparse
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from dataset.image_files import MAX_MEGAPIXELS
from tools.prepare.annotations import write as annotations
from tools.prepare.faults import with_fix
from tools.prepare.own.classes import Classes, ClassOptions, make_classes, parse_classes
from tools.prepare.own.config import config_text, output_files, write_config
from tools.prepare.own.guess import AmbiguousMasks, choose_labels
from tools.prepare.own.report import naming_command, report_config, report_data, table
from tools.prepare.own.settings import PRESETS, choose_settings, schedule_for, seconds_of
from tools.prepare.own.survey import Survey, survey
from util.config.loading import load_config
from util.errors import UserError


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
    add("--unlabeled", type=Path, help="folder of further images, without masks; if some fit "
        "--image-pattern, these only (default: none)")  # fmt: skip
    add("--val", nargs="+", metavar="SHARE|DIR", help="images to validate on: a share of the "
        "labelled ones, a folder in --images, or a folder of images and one of masks (default: the "
        "folder val in --images, else a tenth of the labelled images, but at least 10, or a third "
        "of fewer than 30); a folder test in --images becomes the test split")  # fmt: skip
    add("--out", type=Path, required=True, help="config file to write")
    add("--lists", type=Path, help="folder for the split files (default: splits/<name of the "
        "config>)")  # fmt: skip
    add("--classes", help="class names in the order of the values (background,road,roof), or by "
        "value or colour (0=background,255=road; 0,0,0=background,255,0,0=road); several may "
        "share a name; `ignore` is one, and other=NAME, other=ignore or other=nearest is for the "
        "rest (default: found in the masks)")  # fmt: skip
    add("--ignore", nargs="+", default=[], metavar="VALUE", help="values or colours (r,g,b) to "
        "ignore; other: stray values that are hardly classes")  # fmt: skip
    add("--preset", choices=PRESETS, help="size of network and crops: small for a CPU, base for a "
        "GPU, large for DINOv2, the strongest (default: small, or base with a GPU)")  # fmt: skip
    add("--time-budget", metavar="TIME", help="train as many epochs as fit TIME on this machine "
        "(90min, 2h, 1d), by a measured step (default: 10 to 80 epochs, fewer for many "
        "images)")  # fmt: skip
    add("--max-megapixels", type=int, default=MAX_MEGAPIXELS, metavar="N",
        help="refuse images and masks of more than N million pixels")  # fmt: skip
    add("--skip-bad", action="store_true", help="skip images that cannot be read or do "
        "not fit their masks, and list them")  # fmt: skip
    add("--seed", type=int, default=0, help="seed that draws the validation images")
    add("--force", action="store_true", help="replace the config and the split files; the old "
        "ones are kept as FILE.old, FILE.old2, ...")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Read the data, write config and split files, and report the findings.

    Raises `UserError` for data that cannot be trained on and for files that would be overwritten.
    """
    if args.second and args.unlabeled:
        raise UserError(
            "--unlabeled: not for pairs. Fix: put unlabelled pairs into --images and --second"
        )
    args.lists = args.lists or Path("splits") / args.out.stem
    existing = [path for path in output_files(args) if path.exists()]
    if existing and not args.force:
        raise UserError(
            f"{existing[0]}: exists already. Fix: choose another --out or --lists, or pass --force"
        )
    # A wrong time is refused before files are read.
    budget = seconds_of(args.time_budget) if args.time_budget is not None else None
    with ExitStack() as new_masks:  # removed on an error, but never once the config names them
        if args.annotations is None:
            named = parse_classes(args.classes, args.ignore)
        else:
            args.masks, named = new_masks.enter_context(annotations.annotated_masks(args))
        found = survey(args, named.colours())
        classes = _choose(found, named, args)
        sizes = Counter(sample.split for sample in found.samples)
        settings = choose_settings(found.images, sizes["labeled"], sizes["unlabeled"], args.preset)
        write_config(args, found, classes, settings)
    load_config(args.out)  # the written file can be read
    hours = None
    if budget is not None:
        epochs, steps, hours = schedule_for(args.out, settings.methods[-1], budget)
        settings.config.update(epochs=epochs, epoch_length=steps)
        args.out.write_text(config_text(args, found, classes, settings), encoding="utf-8")
    report_data(args, found, classes)
    report_config(args, classes, settings, hours)


def _choose(found: Survey, named: ClassOptions, args: argparse.Namespace) -> Classes:
    """Choose the classes; for doubtful ones, print the values and a command that names them."""
    try:
        labels = choose_labels(found.masks, named, of_change=args.second is not None)
    except AmbiguousMasks as question:
        print(table(found, question.labels))
        print(f"command  {naming_command(question.labels)}{' --force' if args.force else ''}")
        raise with_fix(question, "run the command above, or correct its --classes first") from None
    return make_classes(found.masks, labels)
