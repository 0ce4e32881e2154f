"""Compare labelling by uncertainty with labelling at random.

Label some images of a pool, train, rank the rest, label as many again, once by the ranking and once
at random; train on each and compare. All images of the pool have masks; those of unlabelled images
are not used. The same command continues an interrupted comparison.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

import numpy as np

from dataset.folders import read_samples
from dataset.samples import Sample
from dataset.split_files import split_file_text
from engine.scripts import CLASSES
from inference.cli import ACQUISITIONS
from tools.splits.partition import Partition
from util.cli import add_settings, exit_with_one_line, importing, run_script
from util.config.loading import load_config
from util.errors import UserError
from util.io import write_once
from util.parser import Parser, at_least
from util.tables import markdown_table

ARMS = ("first", "ranked", "random")
"""Trainings of a seed: on the first images; on more, by the ranking; on more, at random."""


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        config = load_config(args.config, args.set)
        pool = list(read_samples(args.pool, config.data, masks=True).samples)
        if args.count < 1 or 2 * args.count >= len(pool):
            raise UserError(
                f"--count: found {args.count}, expected 1 or more and less than half of the "
                f"{len(pool)} images of {args.pool}"
            )
        with importing():
            from inference.autolabel import encoding_of_labels
        encoding_of_labels(config.data)  # tools.autolabel would refuse it after the first training
        scores = [arm_scores(args, pool, seed) for seed in args.seeds]
        print(seed_table(scores, args))


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.active_learning --pool data/shapes/labeled.txt --count 8",
        "python -m tools.active_learning --config configs/mine.yaml --pool splits/mine/all.txt "
        "--method unimatch --count 32 --acquisition margin",
    )
    parser.add_argument(
        "--config", type=Path, default=Path("configs/shapes.yaml"), help="YAML file of the dataset"
    )
    parser.add_argument("--pool", type=Path, required=True, help="split file of images with masks")
    parser.add_argument(
        "--method", choices=[*CLASSES], default="supervised", help="method to train"
    )
    parser.add_argument(
        "--count", type=int, default=16, help="images labelled first, and again by ranking"
    )
    parser.add_argument(
        "--acquisition", choices=ACQUISITIONS, default="entropy", help="measure of uncertainty"
    )
    parser.add_argument(
        "--seeds",
        type=at_least(0),
        nargs="+",
        default=[0, 1, 2],
        help="seeds; each repeats the comparison",
    )
    parser.add_argument(
        "--save-path", type=Path, default=Path("runs/active_learning"), help="folder of all runs"
    )
    add_settings(parser)
    return parser


def arm_scores(args: argparse.Namespace, pool: list[Sample], seed: int) -> dict[str, float]:
    """Return the mIoU after the last epoch, by arm; the seed also selects the images."""
    order = np.random.default_rng(seed).permutation(len(pool)).tolist()
    count, folder = args.count, args.save_path / args.method / str(seed)
    scores = {"first": train_arm(args, pool, set(order[:count]), folder / "first", seed)}
    ranked_folder = folder / args.acquisition
    ranked = rank_pool(args, pool, folder / "first", ranked_folder)
    scores["ranked"] = train_arm(args, pool, {*order[:count], *ranked}, ranked_folder, seed)
    scores["random"] = train_arm(args, pool, set(order[: 2 * count]), folder / "random", seed)
    return scores


def train_arm(
    args: argparse.Namespace, pool: list[Sample], labelled: set[int], folder: Path, seed: int
) -> float:
    """Train with the `labelled` images of the pool; return the mIoU of the last epoch."""
    rest = [sample._replace(mask=None) for i, sample in enumerate(pool) if i not in labelled]
    lists = Partition([pool[i] for i in sorted(labelled)], rest, []).lists(folder)
    for path, lines in lists.items():
        write_once(path, split_file_text(lines))
    set_lists = [f"data.{path.stem}={path}" for path in lists]
    run_script(f"{args.method}.py", "--config", args.config, "--save-path", folder / "run",
        "--seed", seed, "--set", *args.set, *set_lists)  # fmt: skip
    last = (folder / "run/metrics.jsonl").read_text().splitlines()[-1]
    return json.loads(last)["scores"]["model"]["miou"]


def rank_pool(args: argparse.Namespace, pool: list[Sample], first: Path, folder: Path) -> list[int]:
    """Return the indices of the images that the first network is most uncertain about."""
    out = folder / "labels"
    if not (out / "config.yaml").exists():  # written last
        network = ["--checkpoint", first / "run/latest.pth", "--threshold", 0]
        ranking = ["--rank", folder / "rank.csv", "--acquisition", args.acquisition]
        folder.mkdir(parents=True, exist_ok=True)
        run_script(
            "-m", "tools.autolabel", *network, "--out", out, *ranking, "--select", args.count
        )
    indices = {sample.image_file.resolve(): index for index, sample in enumerate(pool)}
    chosen = read_samples(out / "next.txt", load_config(out / "config.yaml").data, masks=False)
    return [indices[sample.image_file.resolve()] for sample in chosen.samples]


def seed_table(scores: list[dict[str, float]], args: argparse.Namespace) -> str:
    """Return the mIoU of the last epoch as a Markdown table, with a line for each seed."""
    n = args.count
    heads = [f"{n} labelled", f"+ {n} by {args.acquisition}", f"+ {n} at random"]
    rows = [[str(seed), *(f"{s[arm]:.1f}" for arm in ARMS)]
            for seed, s in zip(args.seeds, scores, strict=True)]  # fmt: skip
    rows.append(["mean", *(f"{mean(s[arm] for s in scores):.1f}" for arm in ARMS)])
    return markdown_table([["seed", *heads], *rows], ">")


if __name__ == "__main__":
    main()
