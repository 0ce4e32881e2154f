"""Compare labelling by uncertainty with labelling at random.

Label some images of a pool, train, rank the rest, label as many again, once by the ranking and once
at random; train on each and compare. All masks of the pool are there; those of unlabelled images
are not looked at. The same command continues where it was interrupted.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

import numpy as np

from dataset.folders import read_samples
from dataset.samples import Sample
from dataset.split_files import list_line, list_text, listed_paths
from inference.cli import ACQUISITIONS
from tools.methods import method_scripts
from util.cli import add_settings, exit_with_one_line, run_script
from util.config.loading import load_config
from util.errors import UserError
from util.io import write_once
from util.parser import Parser
from util.tables import markdown_table

ARMS = ("first", "ranked", "random")


def main() -> None:
    options = command_line().parse_args()
    with exit_with_one_line():
        config = load_config(options.config, options.set)
        pool = list(read_samples(options.pool, config.data, masks=True).samples)
        if options.count < 1 or 2 * options.count >= len(pool):
            raise UserError(
                f"--count: found {options.count}, expected 1 or more, twice of which are fewer "
                f"than the {len(pool)} images of {options.pool}"
            )
        scores = [compare(options, pool, seed) for seed in options.seeds]
        print(table(scores, options))


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        (
            "python -m tools.active_learning --pool data/shapes/labeled.txt",
            "python -m tools.active_learning --config configs/mine.yaml --pool splits/mine/all.txt "
            "--method unimatch --count 32 --acquisition margin",
        ),
    )
    parser.add_argument(
        "--config", type=Path, default=Path("configs/shapes.yaml"), help="YAML file of the dataset"
    )
    parser.add_argument("--pool", type=Path, required=True, help="list of images with their masks")
    parser.add_argument(
        "--method", choices=method_scripts(), default="supervised", help="method to train"
    )
    parser.add_argument("--count", type=int, default=16, help="images labelled at first, and then")
    parser.add_argument(
        "--acquisition", choices=ACQUISITIONS, default="entropy", help="measure of uncertainty"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds, each an experiment"
    )
    parser.add_argument(
        "--save-path", type=Path, default=Path("runs/active_learning"), help="folder of all runs"
    )
    add_settings(parser)
    return parser


def compare(options: argparse.Namespace, pool: list[Sample], seed: int) -> dict[str, float]:
    """mIoU after the last epoch, by arm; the seed draws the images too."""
    order = np.random.default_rng(seed).permutation(len(pool)).tolist()
    count, folder = options.count, options.save_path / options.method / str(seed)
    scores = {"first": train(options, pool, set(order[:count]), folder / "first", seed)}
    own = folder / options.acquisition
    ranked = rank(options, pool, folder / "first", own)
    scores["ranked"] = train(options, pool, {*order[:count], *ranked}, own, seed)
    scores["random"] = train(options, pool, set(order[: 2 * count]), folder / "random", seed)
    return scores


def train(
    options: argparse.Namespace, pool: list[Sample], labelled: set[int], folder: Path, seed: int
) -> float:
    """Train with these images of the pool labelled; returns the mIoU of the last epoch."""
    rest = [sample._replace(mask=None) for i, sample in enumerate(pool) if i not in labelled]
    kinds = {"labeled": [pool[i] for i in sorted(labelled)], "unlabeled": rest}
    lists = {kind: [list_line(*listed_paths(s)) for s in some] for kind, some in kinds.items()}
    for kind, lines in lists.items():
        write_once(folder / f"{kind}.txt", list_text(lines))
    set_lists = [f"data.{kind}={folder / kind}.txt" for kind in lists]
    run_script(f"{options.method}.py", "--config", options.config, "--save-path", folder / "run",
        "--seed", seed, "--set", *options.set, *set_lists)  # fmt: skip
    last = (folder / "run/metrics.jsonl").read_text().splitlines()[-1]
    return json.loads(last)["scores"]["model"]["miou"]


def rank(options: argparse.Namespace, pool: list[Sample], first: Path, own: Path) -> list[int]:
    """Return the images of the pool that the first network is least sure of."""
    out = own / "labels"
    if not (out / "config.yaml").exists():  # which is written last
        network = ["--checkpoint", first / "run/latest.pth", "--threshold", 0]
        ranking = ["--rank", own / "rank.csv", "--acquisition", options.acquisition]
        own.mkdir(parents=True, exist_ok=True)
        run_script(
            "-m", "tools.autolabel", *network, "--out", out, *ranking, "--select", options.count
        )
    number = {sample.image_file.resolve(): place for place, sample in enumerate(pool)}
    chosen = read_samples(out / "next.txt", load_config(out / "config.yaml").data, masks=False)
    return [number[sample.image_file.resolve()] for sample in chosen.samples]


def table(scores: list[dict[str, float]], options: argparse.Namespace) -> str:
    """mIoU of the last epoch, a line for each seed, as Markdown."""
    n = options.count
    heads = [f"{n} labelled", f"+ {n} by {options.acquisition}", f"+ {n} at random"]
    rows = [[str(seed), *(f"{s[arm]:.1f}" for arm in ARMS)]
            for seed, s in zip(options.seeds, scores, strict=True)]  # fmt: skip
    rows.append(["mean", *(f"{mean(s[arm] for s in scores):.1f}" for arm in ARMS)])
    return markdown_table([["seed", *heads], *rows], ">")


if __name__ == "__main__":
    main()
