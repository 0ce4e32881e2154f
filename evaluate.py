"""Score a checkpoint: IoU of each class, mIoU, pixel accuracy, speed."""

from util.interrupt import exit_on_ctrl_c

if __name__ == "__main__":
    exit_on_ctrl_c()  # also during the imports

import argparse
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.folders import require_sources
from inference.cli import (
    checkpoint_and_config,
    checkpoint_parser,
    names_validation,
    predict_command,
    same_network,
    split_of,
)
from util.cli import exit_with_one_line, importing
from util.config.schema import Config
from util.errors import UserError, counted
from util.io import file_sha256, require_folder_of, write_text
from util.launched import processes_here
from util.parser import Parser

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dataset.samples import Samples
    from dataset.split_files import Split
    from inference.evaluation import Scores

BOUNDARY = 0.02
"""Default of --boundary-iou, as published."""


def main() -> None:
    options = command_line().parse_args()
    with exit_with_one_line():
        check_options(options)
        options.checkpoint, config = checkpoint_and_config(options)
        if options.surface_distance and config.evaluation.volume_pattern is None:
            raise UserError(
                "--surface-distance: the config defines no volumes. Fix: set "
                "evaluation.volume_pattern"
            )
        require_sources(split_of(config, options.split), config.data)
        with importing():
            from util import distributed
            from util.log import log_to_console
        device = distributed.choose_device(options.device)
        with distributed.session(device), exit_with_one_line():
            log_to_console()
            score(options, config, device)


def command_line() -> Parser:
    parser = checkpoint_parser(
        __doc__,
        (
            "python evaluate.py --checkpoint runs/mine/unimatch",
            "python evaluate.py --checkpoint runs/mine/unimatch --split test --tta flip "
            "--save-path scores/ --worst 20",
        ),
    )
    parser.add_argument(
        "--split", choices=("val", "test"), default="val", help="images to score: data.val or .test"
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="also write the scores as JSON (default: not)"
    )
    parser.add_argument(
        "--save-path",
        type=Path,
        metavar="OUT",
        help="new folder for scores.csv, confusion.csv, confusion.png and worst/ (default: none)",
    )
    parser.add_argument(
        "--worst",
        type=int,
        default=0,
        metavar="N",
        help="also pictures of the N images with the lowest mean IoU, in --save-path",
    )
    parser.add_argument(
        "--boundary-iou",
        type=float,
        nargs="?",
        const=BOUNDARY,
        metavar="SHARE",
        help="also boundary IoU, within SHARE of the image's diagonal from contours (default: not; "
        f"{BOUNDARY} without a SHARE)",
    )
    parser.add_argument(
        "--surface-distance",
        action="store_true",
        help="also HD95 and average surface distance (ASD) of each class, over volumes",
    )
    return parser


def check_options(options: argparse.Namespace) -> None:
    """Raise `UserError` for invalid options, and for a --save-path that is not an empty folder."""
    if options.worst and not options.save_path:
        raise UserError("--worst: needs a folder for the pictures; add --save-path OUT")
    if options.worst < 0:
        raise UserError(f"--worst: found {options.worst}, expected a number of images")
    if options.boundary_iou is not None and not 0 < options.boundary_iou < 1:
        raise UserError(
            f"--boundary-iou: found {options.boundary_iou}, expected a share of the image's "
            f"diagonal, such as {BOUNDARY}"
        )
    if options.json:
        require_folder_of(options.json, "--json")
    if options.save_path and os.path.lexists(options.save_path):
        folder = options.save_path
        if not folder.is_dir() or any(folder.iterdir()):
            raise UserError(f"--save-path {folder}: exists already; choose another folder")


def score(options: argparse.Namespace, config: Config, device: "torch.device") -> None:
    """Evaluate the checkpoint on the split; log the scores and write the requested files."""
    with importing():
        from inference.evaluation import evaluate, how_predicted, score_table, volume_indices
        from inference.evaluation_files import write_worst
        from inference.volume_distances import VolumeDistances
        from metrics.boundary import BoundaryIoU
        from metrics.confusion import class_scores
        from model.trained import load_trained
        from util import distributed
        from util.log import logger
    name, samples = read_split(options, config)
    paths, classes = [sample.image for sample in samples], config.data.classes
    volumes = volume_indices(paths, config.evaluation.volume_pattern)
    network = load_trained(config, options.checkpoint, options.which, device)
    boundary = surfaces = None
    if options.boundary_iou:
        boundary = BoundaryIoU(len(classes), options.boundary_iou, device)
    if options.surface_distance:
        spacing = config.evaluation.spacing
        surfaces = VolumeDistances(paths, volumes, len(classes), spacing, device)
    begin = time.perf_counter()
    scores = evaluate(
        network, batches_of(samples, config, device), config, mode=config.evaluation.mode,
        device=device, volumes=volumes, watchers=[w for w in (boundary, surfaces) if w],
    )  # fmt: skip
    speed = len(samples) / (time.perf_counter() - begin)
    of_classes = class_scores(scores.confusion)
    if boundary:
        of_classes["boundary IoU"] = boundary.iou()
    logger.info("%s", score_table(scores, classes, of_classes))
    distances = surfaces.logged(classes) if surfaces else {}
    views = how_predicted(config.evaluation)
    logger.info(f"{counted(len(samples), 'image')} of {name}, {views}, {speed:.1f} a second")
    facts = {"list": name, "images": len(samples), "images_per_second": speed}
    if options.worst:
        folder = options.save_path / "worst"
        distributed.on_main(
            lambda: write_worst(folder, options.worst, scores, samples, network, config, device)
        )
    distributed.on_main(
        lambda: write_results(options, config, facts, scores, of_classes, distances)
    )


def read_split(options: argparse.Namespace, config: Config) -> "Split":
    """Return the images to score after checking their files, and that all ranks score the same
    network on the same images in the same way."""
    from dataset.folders import read_samples
    from dataset.overlap import changed_since_training, refuse_overlaps, seen_in_training
    from dataset.split_files import split_identity, split_order
    from dataset.validation import check_files
    from util import distributed
    from util.log import code_version, logger

    split = read_samples(split_of(config, options.split), config.data, masks=True)
    refuse_overlaps(split)
    distributed.on_main(lambda: check_files(config.data, split, warn=logger.warning))
    if options.split == "test" and distributed.is_main():
        for warning in seen_in_training(split, config.data):
            logger.warning(warning)
    is_own = options.config is None and not names_validation(options.set)
    if options.split == "val" and is_own and distributed.is_main():
        if problem := changed_since_training(options.checkpoint.parent, split):
            logger.warning("%s; the score may be too high", problem)
    if distributed.world_size() > 1:
        names = ("which", "worst", "boundary_iou", "surface_distance")
        facts = {f"--{name}": getattr(options, name) for name in names} | {
            "code": code_version(),
            "checkpoint's SHA-256": file_sha256(options.checkpoint),
            "split file": split_identity(split.samples),
            "order of the split file": split_order(split.samples),
        }
        distributed.require_equal("settings", facts | config.model_dump(mode="json"))
    return split


def batches_of(samples: "Samples", config: Config, device: "torch.device") -> Iterable[Any]:
    """Return the images of this rank, one at a time."""
    from dataset.loaders import LoaderProcess, data_workers, evaluation_loader
    from util import distributed

    workers = data_workers(config, processes_here())
    rank, world = distributed.rank(), distributed.world_size()
    process = LoaderProcess(rank, world, workers, cuda=device.type == "cuda")
    return evaluation_loader(config, samples, process)


def write_results(
    options: argparse.Namespace,
    config: Config,
    facts: dict[str, Any],
    scores: "Scores",
    of_classes: "dict[str, Tensor]",
    distances: dict[str, list[float | None]],
) -> None:
    """Write --json and the tables of --save-path; log the written files and the next command."""
    from inference.evaluation import score_record
    from inference.evaluation_files import write_scores
    from util.log import logger

    if options.save_path:
        shares = scores.by_class | of_classes
        classes = config.data.classes
        write_scores(options.save_path, classes, scores.confusion, shares, distances)
        worst = ", worst/" * bool(options.worst)
        files = f"scores.csv, confusion.csv, confusion.png{worst}"
        logger.info("written  %s: %s", options.save_path, files)
    if options.json:
        record = {
            "checkpoint": str(options.checkpoint),
            "which": options.which,
            **facts,
            "mode": config.evaluation.mode,
            "flip": config.evaluation.flip,
            "scales": config.evaluation.scales,
            "classes": config.data.classes,
            **score_record(scores),
            "class_scores": {name: (100 * v).tolist() for name, v in of_classes.items()},
            **({"surface_distance": distances} if distances else {}),
        }
        text = json.dumps(record, indent=1) + "\n"
        write_text(options.json, text, f"--json {options.json}")
        logger.info("written  %s", options.json)
    logger.info("next     %s", predict_command(same_network(options), config.data.dates))


if __name__ == "__main__":
    main()
