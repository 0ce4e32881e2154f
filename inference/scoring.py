"""The work of evaluate.py: score a checkpoint on a split and write the results."""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dataset.bands import pictures
from dataset.folders import read_samples
from dataset.loaders import Process, data_workers, evaluation_loader
from dataset.reader import Reader
from dataset.samples import Sample
from dataset.split_files import SampleList, list_identity
from dataset.validation import check_files, refuse_overlaps
from inference.cli import split_of
from inference.evaluation import Scores, Watcher, evaluate, summary, table, volume_indices
from inference.overlay import save_picture
from inference.predictor import Predictor
from inference.volume_distances import VolumeDistances
from inference.worst_images import ImageScores, comparison
from metrics.boundary import DISTANCE, BoundaryIoU
from metrics.confusion import class_scores, confusion_rows
from model.trained import load_trained
from util import distributed, plotting
from util.config.schema import Config, Evaluation
from util.errors import quoted
from util.io import csv_text, file_sha256, write_text
from util.log import code_version, logger


def score(config: Config, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Evaluate a checkpoint on a split; log a table, write the requested files, return scores."""
    listed = read_split(config, options.split)
    paths, classes = [sample.image for sample in listed.samples], config.data.classes
    volumes = volume_indices(paths, config.evaluation.volume_pattern)
    compare_ranks(config, options, listed)
    network = load_trained(config, options.checkpoint, options.which, device)
    boundary = BoundaryIoU(config.num_classes, options.boundary_iou or DISTANCE, device)
    images = ImageScores(len(listed.samples), device)
    surfaces = VolumeDistances(paths, volumes, len(classes), config.evaluation.spacing, device)
    wanted: dict[Watcher, Any] = {
        boundary: options.boundary_iou,
        images: options.worst,
        surfaces: options.surface_distance,
    }
    begin = time.perf_counter()
    scores = evaluate(
        network,
        evaluation_loader(config, listed.samples, this_process(config, device)),
        config,
        mode=config.evaluation.mode,
        device=device,
        volumes=volumes,
        watchers=[watcher for watcher, asked in wanted.items() if asked],
    )
    speed = len(listed.samples) / (time.perf_counter() - begin)
    of_classes = class_scores(scores.confusion)
    if options.boundary_iou:
        of_classes["boundary IoU"] = boundary.iou()
    logger.info("%s", table(scores, classes, of_classes))
    distances = surfaces.logged(classes) if options.surface_distance else {}
    logger.info(
        f"{len(listed.samples)} images of {listed.name}, {how_predicted(config.evaluation)}, "
        f"{speed:.1f} a second"
    )
    if options.save_path:
        worst = images.worst(options.worst)
        distributed.on_main(
            lambda: save_tables(options.save_path, scores, of_classes, config, distances)
        )
        distributed.on_main(
            lambda: save_worst(options.save_path, worst, network, listed, config, device)
        )
    return {
        "checkpoint": str(options.checkpoint),
        "which": options.which,
        "list": listed.name,
        "images": len(listed.samples),
        "images_per_second": speed,
        "mode": config.evaluation.mode,
        "flip": config.evaluation.flip,
        "scales": config.evaluation.scales,
        "classes": config.data.classes,
        **summary(scores),
        "class_scores": {name: (100 * v).tolist() for name, v in of_classes.items()},
        **({"surface_distance": distances} if distances else {}),
    }


def compare_ranks(config: Config, options: argparse.Namespace, listed: SampleList) -> None:
    """Check that all ranks score the same network on the same images in the same way."""
    if distributed.world_size() == 1:
        return
    names = ("which", "worst", "boundary_iou", "surface_distance")
    given = {f"--{name}": getattr(options, name) for name in names}
    facts = given | {
        "code": code_version(),
        "checkpoint's SHA-256": file_sha256(options.checkpoint),
        "split file": list_identity(listed.samples),
    }
    distributed.require_equal("settings", facts | config.model_dump(mode="json"))


def how_predicted(evaluation: Evaluation) -> str:
    """Describe the prediction mode and the views of test-time augmentation."""
    scales = f"scales {', '.join(f'{scale:g}' for scale in evaluation.scales)}"
    views = ["mirrored too"] * evaluation.flip + [scales] * (evaluation.scales != (1.0,))
    return ", ".join([evaluation.mode, *views])


def read_split(config: Config, split: str) -> SampleList:
    """Return the images to score after checking them; raises `UserError` where there are none."""
    listed = read_samples(split_of(config, split), config.data, masks=True)
    refuse_overlaps(listed)
    distributed.on_main(lambda: check_files(config.data, listed, warn=logger.warning))
    return listed


def this_process(config: Config, device: torch.device) -> Process:
    workers = data_workers(config, distributed.processes_here())
    return Process(distributed.rank(), distributed.world_size(), workers, device.type == "cuda")


def save_tables(
    folder: Path,
    scores: Scores,
    of_classes: dict[str, Tensor],
    config: Config,
    distances: dict[str, list[float | None]],
) -> None:
    """Write scores.csv (in percent; `distances` as they are), confusion.csv (in pixels) and
    confusion.png."""
    classes, columns = config.data.classes, scores.by_class | of_classes
    rows = [
        [
            name,
            pixels,
            *(f"{100 * values[index]:.4f}" for values in columns.values()),
            *("" if values[index] is None else values[index] for values in distances.values()),
        ]
        for index, (name, pixels) in enumerate(
            zip(classes, scores.confusion.sum(1).tolist(), strict=True)
        )
    ]
    figure = plotting.draw_confusion_matrix(scores.confusion.numpy(), classes)
    save_picture(plotting.as_image(figure), folder / "confusion.png")
    write_text(folder / "confusion.csv", csv_text(confusion_rows(scores.confusion, classes)))
    write_text(folder / "scores.csv", csv_text([["class", "pixels", *columns, *distances], *rows]))


def save_worst(
    folder: Path,
    worst: list[tuple[int, float]],
    network: nn.Module,
    listed: SampleList,
    config: Config,
    device: torch.device,
) -> None:
    """Write pictures of the worst images with their masks and predictions."""
    reader, predictor = Reader(config.data), Predictor(network, config, device)
    for place, (index, miou) in enumerate(worst, 1):
        sample: Sample = listed.samples[index]
        pixels, stored = reader.both(sample)
        mask = np.array(stored)
        if config.evaluation.mode == "center_crop":
            pixels, mask = (center(array, config.crop_size) for array in (pixels, mask))
        predicted = predictor.mask(pixels)
        title = f"{sample.image}, mean IoU {100 * miou:.1f}"
        dates = pictures(pixels, config.data)
        made = comparison(dates, mask, predicted, config.data, title)
        save_picture(made, folder / "worst" / f"{place:03}_{Path(sample.image).stem}.jpg")


def center(array: np.ndarray, size: int) -> np.ndarray:
    """Return the central `size` square of `[H, W, ...]`, like `center_crop` of `[..., H, W]`."""
    top, left = (max(side - size, 0) // 2 for side in array.shape[:2])
    return array[top : top + size, left : left + size]


def say_what_is_written(options: argparse.Namespace) -> None:
    """Log the files of the command, and the next command."""
    files = [options.json] if options.json else []
    if options.save_path:
        names = ["scores.csv", "confusion.csv", "confusion.png", *["worst/"] * (options.worst > 0)]
        files += [f"{options.save_path}: {', '.join(names)}"]
    for file in files:
        logger.info("written  %s", file)
    logger.info(
        "next     python predict.py --checkpoint %s --images FOLDER --save-path OUT",
        quoted(options.checkpoint),
    )
