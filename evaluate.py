"""Score a checkpoint: per-class IoU, mIoU, pixel accuracy, speed."""

import json
import time
from pathlib import Path

import torch

from dataset.check import check_files, refuse_overlaps
from dataset.folders import read_samples
from dataset.loaders import Process, data_workers, evaluation_loader
from model.build import load_network
from util import dist
from util.command import checkpoint_parser, exit_with_one_line, is_secondary_rank
from util.config import Config
from util.config_file import load_config
from util.errors import UserError
from util.evaluation import evaluate, summary, table, volume_indices
from util.log import logger, say_to_console
from util.speed import use_layout
from util.writing import write_text


def main() -> None:
    parser = checkpoint_parser(__doc__)
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the scores there")
    options = parser.parse_args()
    with exit_with_one_line(quiet=is_secondary_rank()):
        config = load_config(options.config, options.set)
        device = dist.choose_device(options.device)
    with dist.session(device), exit_with_one_line(quiet=not dist.is_main()):
        say_to_console()
        scores = score(config, options.checkpoint, options.which, options.split, device)
        if options.json and dist.is_main():
            write_text(options.json, json.dumps(scores, indent=1) + "\n", f"--json {options.json}")


def score(
    config: Config, checkpoint: Path, which: str, split: str, device: torch.device
) -> dict[str, object]:
    """Evaluate a checkpoint on a split; logs the table, returns the numbers."""
    source = config.data.val if split == "val" else config.data.test
    if source is None:
        raise UserError("--split test: the config names no data.test list")
    listed = read_samples(source, config.data.root, masks=True)
    refuse_overlaps(listed)
    dist.on_main(lambda: check_files(config.data, listed, warn=logger.warning))
    network = load_network(config.model, config.num_classes, checkpoint, which).to(device)
    use_layout(network, config)
    workers = data_workers(config, dist.processes_here())
    process = Process(dist.rank(), dist.world_size(), workers, device.type == "cuda")
    samples = listed.samples
    begin = time.perf_counter()
    scores = evaluate(
        network,
        evaluation_loader(config, samples, process),
        config,
        mode=config.evaluation.mode,
        device=device,
        volumes=volume_indices([s.image for s in samples], config.evaluation.volume_pattern),
    )
    speed = len(samples) / (time.perf_counter() - begin)
    logger.info("%s", table(scores, config.data.classes))
    images = f"{len(samples)} images of {listed.name}"
    logger.info(f"{images}, {config.evaluation.mode}, {speed:.1f} a second")
    return {
        "checkpoint": str(checkpoint),
        "which": which,
        "list": listed.name,
        "images": len(samples),
        "images_per_second": speed,
        "mode": config.evaluation.mode,
        "classes": config.data.classes,
        **summary(scores),
    }


if __name__ == "__main__":
    main()
