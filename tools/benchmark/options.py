"""The command lines of the benchmarks."""

from collections.abc import Callable
from pathlib import Path

from tools.methods import method_scripts
from util.cli import add_device, add_settings
from util.parser import Parser
from util.paths import REPOSITORY

KINDS = ("labeled", "unlabeled", "val")
PASCAL = (1464, 9118, 1449)
PLAIN = ["precision=float32", "tf32=false", "channels_last=false", "compile=false"]
TUNED = [*PLAIN, "precision=bfloat16", "tf32=true", "channels_last=true"]
SETTINGS = {
    "plain": PLAIN,
    "tf32": [*PLAIN, "tf32=true"],
    "channels_last": [*PLAIN, "channels_last=true"],
    "bfloat16": [*PLAIN, "precision=bfloat16"],
    "tuned": TUNED,
    "compiled": [*TUNED, "compile=true"],
}
METHODS = sorted(method_scripts(), key=lambda script: script != "unimatch")  # which is the first


def published(script: str) -> str:
    """Return the config with a method's published settings for Pascal."""
    own = f"configs/pascal_{script}.yaml"
    return own if (REPOSITORY / own).exists() else "configs/pascal.yaml"


PARTS = {
    **{
        script: ["step", "settings", "--method", script, "--config", published(script),
                 "--settings", "plain", "tuned"]
        for script in METHODS
    },
    "settings": ["step", "settings"],
    "parts": ["step", "parts", "--set", *TUNED],
    "windows": ["eval"],
    "start": ["start"],
}  # fmt: skip
"""Arguments of `python -m tools.benchmark`."""


def step(parser: Parser) -> None:
    parser.add_argument("subject", choices=("settings", "methods", "parts"), help="what differs")
    _add_config(parser)
    _add_repeats(parser, 7)
    _add_photos(parser)
    _add_own(parser)
    _add_method(parser)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, help="tuned: bfloat16, "
        "channels_last, TF32; compiled: also compile (default: all; on a CPU without tf32 and "
        "compiled)")  # fmt: skip


def data(parser: Parser) -> None:
    _add_config(parser)
    _add_repeats(parser, 9)
    _add_photos(parser)
    _add_own(parser)


def evaluation(parser: Parser) -> None:
    _add_config(parser, default="configs/cityscapes.yaml")
    _add_repeats(parser, 5)
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(1024, 2048),
        metavar=("H", "W"),
        help="height and width of the image",
    )


def start(parser: Parser) -> None:
    _add_config(parser)
    _add_photos(parser)
    _add_method(parser)
    add = parser.add_argument
    add("--counts", type=int, nargs=3, default=PASCAL, metavar=tuple(map(str.upper, KINDS)),
        help="images in the lists, as many as Pascal's")  # fmt: skip
    add("--tmp", type=Path, help="folder for the files: links to photos, removed in the end "
        "(default: the system's)")  # fmt: skip


def gpu(parser: Parser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the results, a text file for each part")
    add("--parts", nargs="+", choices=PARTS, help="measure these (default: those without a result)")
    add("--seconds", type=float, default=120, help="time limit of a part")


BENCHMARKS: dict[str, tuple[str, Callable[[Parser], None], tuple[str, str]]] = {
    "step": (
        "Time optimizer steps: settings, methods, or parts of a step.",
        step,
        ("settings --repeats 5", "methods --set crop_size=129 batch_size=2"),
    ),
    "data": (
        "Time samples as a data worker makes them, on one core, and decoding alone.",
        data,
        ("--repeats 15", "--config configs/mine.yaml --own"),
    ),
    "eval": (
        "Time sliding-window evaluation.",
        evaluation,
        ("--device cuda", "--size 512 1024 --repeats 3"),
    ),
    "start": (
        "Time the parts of a training's start.",
        start,
        ("--device cpu", "--images photos/ --counts 92 10490 1449"),
    ),
    "gpu": (
        "Measure all about a GPU: speed, memory, checks.",
        gpu,
        ("--out runs/gpu", "--out runs/gpu --parts unimatch windows --seconds 300"),
    ),
}
"""Text, options and examples of each benchmark."""


def _add_config(parser: Parser, default: str = "configs/pascal.yaml") -> None:
    parser.add_argument("--config", default=default, help="YAML file")
    add_settings(parser)
    add_device(parser)


def _add_repeats(parser: Parser, repeats: int) -> None:
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds that are timed")


def _add_photos(parser: Parser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="photos (default: generated ones, 500x375)",
    )


def _add_own(parser: Parser) -> None:
    parser.add_argument(
        "--own", action="store_true", help="the lists that the config names instead"
    )


def _add_method(parser: Parser) -> None:
    parser.add_argument(
        "--method", choices=method_scripts(), default="unimatch", help="the method's script"
    )
