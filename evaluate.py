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
    is_set,
    predict_command,
    same_network,
    split_of,
)
from util.cli import exit_with_one_line, importing
from util.config.schema import Config
from util.errors import UserError, counted
from util.io import check_target, file_sha256, write_text
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
    args = command_line().parse_args()
    with exit_with_one_line():
        check_options(args)
        args.checkpoint, config = checkpoint_and_config(args)
        if args.surface_distance and config.evaluation.volume_pattern is None:
            raise UserError(
                "--surface-distance: the config defines no volumes. Fix: set "
                "evaluation.volume_pattern"
            )
        require_sources(split_of(config, args.split), config.data)
        with importing():
            from util import distributed
            from util.log import log_to_console
        device = distributed.choose_device(args.device)
        with distributed.session(device), exit_with_one_line():
            log_to_console()
            score(args, config, device)


def command_line() -> Parser:
    parser = checkpoint_parser(
        __doc__,
        "python evaluate.py --checkpoint runs/mine/unimatch",
        "python evaluate.py --checkpoint runs/mine/unimatch --split test --tta flip "
        "--save-path scores/ --worst 20",
    )
    parser.add_argument(
        "--split",
        choices=("val", "test"),
        default="val",
        help="images to score: data.val or data.test",
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="also write the scores as JSON (default: off)"
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
        help="also boundary IoU, for pixels within SHARE of the image diagonal from a contour "
        f"(default: off; SHARE defaults to {BOUNDARY})",
    )
    parser.add_argument(
        "--surface-distance",
        action="store_true",
        help="also HD95 and average surface distance (ASD) of each class, over volumes",
    )
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Raise `UserError` for invalid options, and for a --save-path that is not an empty folder."""
    if args.worst and not args.save_path:
        raise UserError("--worst: needs a folder for the pictures; add --save-path OUT")
    if args.worst < 0:
        raise UserError(f"--worst: found {args.worst}, expected a number of images")
    if args.boundary_iou is not None and not 0 < args.boundary_iou < 1:
        raise UserError(
            f"--boundary-iou: found {args.boundary_iou}, expected a share of the image's "
            f"diagonal, such as {BOUNDARY}"
        )
    if args.json:
        check_target(args.json, "evaluate.py", "--json")
    if args.save_path and os.path.lexists(args.save_path):
        folder = args.save_path
        if not folder.is_dir() or any(folder.iterdir()):
            raise UserError(f"--save-path {folder}: exists already; choose another folder")


def score(args: argparse.Namespace, config: Config, device: "torch.device") -> None:
    """Evaluate the checkpoint on the split; log the scores and write the requested files."""
    with importing():
        from dataset.image_files import image_size
        from inference.evaluation import evaluate, how_predicted, score_table, volume_indices
        from inference.evaluation_files import write_worst
        from inference.volume_distances import VolumeDistances
        from metrics.boundary import BoundaryIoU
        from metrics.confusion import class_scores
        from model.trained import load_trained
        from util import distributed
        from util.log import logger
    name, samples = read_split(args, config)
    paths, classes = [sample.image for sample in samples], config.data.classes
    volumes = volume_indices(paths, config.evaluation.volume_pattern)
    network = load_trained(config, args.checkpoint, args.which, device)
    boundary = distances = None
    if args.boundary_iou:
        boundary = BoundaryIoU(len(classes), args.boundary_iou, device)
    if args.surface_distance:
        spacing = config.evaluation.spacing
        sizes = [image_size(sample.image_files[0]) for sample in samples]
        if config.evaluation.mode == "center_crop":
            sizes = [(min(w, config.crop_size), min(h, config.crop_size)) for w, h in sizes]
        distances = VolumeDistances(paths, sizes, volumes, len(classes), spacing, device)
    begin = time.perf_counter()
    scores = evaluate(
        network, batches_of(samples, config, device), config, mode=config.evaluation.mode,
        device=device, volumes=volumes, collectors=[c for c in (boundary, distances) if c],
    )  # fmt: skip
    speed = len(samples) / (time.perf_counter() - begin)
    class_scores_by_title = class_scores(scores.confusion)
    if boundary:
        class_scores_by_title["boundary IoU"] = boundary.iou()
    logger.info("%s", score_table(scores, classes, class_scores_by_title))
    distances_by_title = distances.logged(classes) if distances else {}
    mode = how_predicted(config.evaluation)
    images = f"{counted(len(samples), 'image')} of {name}"
    logger.info(f"{args.which}: {images}, {mode}, {speed:.1f} images/s")
    facts = {"list": name, "images": len(samples), "images_per_second": speed}
    if args.worst:
        folder = args.save_path / "worst"
        distributed.on_main(
            lambda: write_worst(folder, args.worst, scores, samples, network, config, device)
        )
    distributed.on_main(
        lambda: write_results(
            args, config, facts, scores, class_scores_by_title, distances_by_title
        )
    )


def read_split(args: argparse.Namespace, config: Config) -> "Split":
    """Return the images to score after checking their files, and that all ranks score the same
    network on the same images in the same way."""
    from dataset.folders import read_samples
    from dataset.overlap import changed_since_training, refuse_overlaps, seen_in_training
    from dataset.split_files import split_identity, split_order
    from dataset.validation import check_files
    from util import distributed
    from util.log import code_version, logger

    split = read_samples(split_of(config, args.split), config.data, masks=True)
    refuse_overlaps(split)
    distributed.on_main(lambda: check_files(config.data, split))
    if args.split == "test" and distributed.is_main():
        for warning in seen_in_training(split, config.data, config.evaluation.volume_pattern):
            logger.warning(warning)
    uses_run_config = args.config is None and not is_set("data.val", args.set)
    if args.split == "val" and uses_run_config and distributed.is_main():
        if problem := changed_since_training(args.checkpoint.parent, split):
            logger.warning("%s; the score may be too high", problem)
        elif args.checkpoint.name != "latest.pth":
            fix = "--split test" if config.data.test else "--set data.test=FILE --split test"
            note = "these images selected the best checkpoint; report a test split"
            logger.info("note     %s: %s", note, fix)
    if distributed.world_size() > 1:
        names = ("which", "worst", "boundary_iou", "surface_distance")
        facts = {f"--{name}": getattr(args, name) for name in names} | {
            "code": code_version(),
            "checkpoint's SHA-256": file_sha256(args.checkpoint),
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
    args: argparse.Namespace,
    config: Config,
    facts: dict[str, Any],
    scores: "Scores",
    class_scores_by_title: "dict[str, Tensor]",
    distances_by_title: dict[str, list[float | None]],
) -> None:
    """Write --json and the tables of --save-path; log the written files and the next command."""
    from inference.evaluation import score_record
    from inference.evaluation_files import write_scores
    from util.log import logger

    if args.save_path:
        shares = scores.by_class | class_scores_by_title
        classes = config.data.classes
        write_scores(args.save_path, classes, scores.confusion, shares, distances_by_title)
        worst = ", worst/" if args.worst else ""
        files = f"scores.csv, confusion.csv, confusion.png{worst}"
        logger.info("written  %s: %s", args.save_path, files)
    if args.json:
        record = {
            "report": "evaluate.py",
            "checkpoint": str(args.checkpoint),
            "which": args.which,
            **facts,
            "mode": config.evaluation.mode,
            "flip": config.evaluation.flip,
            "scales": config.evaluation.scales,
            "classes": config.data.classes,
            **score_record(scores),
            "class_scores": {k: (100 * v).tolist() for k, v in class_scores_by_title.items()},
            **({"surface_distance": distances_by_title} if distances_by_title else {}),
        }
        write_text(args.json, json.dumps(record, indent=1) + "\n")
        logger.info("written  %s", args.json)
    logger.info("next     %s", predict_command(same_network(args), config.data.dates))


if __name__ == "__main__":
    main()
