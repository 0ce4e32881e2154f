"""Scores of a checkpoint on a split, for evaluate.py."""

import argparse
import json
import time
from typing import Any

import torch
from torch import Tensor

from dataset.folders import read_samples
from dataset.image_files import image_size
from dataset.loaders import evaluation_loader
from dataset.overlap import changed_since_training, refuse_overlaps, seen_in_training
from dataset.split_files import Split, split_identity, split_order
from dataset.validation import check_files
from inference.cli import is_set, predict_command, same_network, split_of
from inference.evaluation import (
    describe_prediction,
    evaluate,
    loader_process,
    volume_indices,
    with_bar,
)
from inference.evaluation_files import write_scores, write_worst
from inference.scores import Scores, score_record, score_table
from inference.volume_distances import VolumeDistances
from metrics.boundary import BoundaryIoU
from metrics.confusion import class_scores
from model.trained import load_trained
from util import distributed
from util.config.schema import Config
from util.errors import counted
from util.io import file_sha256, write_text
from util.log import code_version, logger
from util.precision import warn_if_emulated


def score(args: argparse.Namespace, config: Config, device: torch.device) -> None:
    """Evaluate the checkpoint on the split; log the scores and write the requested files."""
    name, samples = read_split(args, config)
    paths, classes = [sample.image for sample in samples], config.data.classes
    volumes = volume_indices(paths, config.evaluation.volume_pattern)
    warn_if_emulated(device, config.precision)
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
    loader = evaluation_loader(config, samples, loader_process(config, device))
    batches = with_bar(loader, "images")
    scores = evaluate(
        network, batches, config, mode=config.evaluation.mode, device=device, volumes=volumes,
        collectors=[c for c in (boundary, distances) if c],
    )  # fmt: skip
    speed = len(samples) / (time.perf_counter() - begin)
    class_scores_by_title = class_scores(scores.confusion)
    if boundary:
        class_scores_by_title[boundary.title] = boundary.iou()
    logger.info("%s", score_table(scores, classes, class_scores_by_title))
    distances_by_title = distances.log_table(classes) if distances else {}
    mode = describe_prediction(config.evaluation)
    images = f"{counted(len(samples), 'image')} of {name}"
    logger.info(f"{args.which}: {images}, {mode}, {speed:.1f} images/s")
    facts = {"list": name, "images": len(samples), "images_per_second": speed}
    if args.worst:
        folder = args.save_path / "worst"
        distributed.on_main(
            write_worst, folder, args.worst, scores, samples, network, config, device
        )
    distributed.on_main(
        write_results, args, config, facts, scores, class_scores_by_title, distances_by_title
    )


def read_split(args: argparse.Namespace, config: Config) -> Split:
    """Return the images to score after checking their files, and that all ranks score the same
    network on the same images in the same way."""
    split = read_samples(split_of(config, args.split), config.data, masks=True)
    refuse_overlaps(split)
    distributed.on_main(check_files, config.data, split)
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


def write_results(
    args: argparse.Namespace,
    config: Config,
    facts: dict[str, Any],
    scores: Scores,
    class_scores_by_title: dict[str, Tensor],
    distances_by_title: dict[str, list[float | None]],
) -> None:
    """Write --json and the tables of --save-path; log the written files and the next command."""
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
