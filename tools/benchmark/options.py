"""The command lines of the benchmarks."""

from pathlib import Path

from engine.scripts import CLASSES
from util.cli import add_device, add_settings
from util.parser import Parser, at_least
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
METHODS = sorted(CLASSES, key=lambda script: script != "unimatch")
"""UniMatch first: the others are compared with it."""


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
    "windows": ["eval"],
    "start": ["start"],
}  # fmt: skip
"""Parts of the benchmark of a GPU: arguments of `python -m tools.benchmark`."""


TEXTS = {
    "step": (
        "Time optimizer steps: settings or methods.",
        "settings --repeats 5",
        "methods --set crop_size=129 batch_size=2",
    ),
    "data": (
        "Time samples as a data worker makes them, on one core, and decoding alone.",
        "--repeats 15",
        "--config configs/mine.yaml --own",
    ),
    "eval": (
        "Time sliding-window evaluation.",
        "--device cuda",
        "--size 512 1024 --repeats 3",
    ),
    "start": (
        "Time the parts of a training's start.",
        "--device cpu",
        "--images photos/ --counts 92 10490 1449",
    ),
    "gpu": (
        "Measure a GPU: speed and memory of all methods and settings.",
        "--out runs/gpu",
        "--out runs/gpu --seconds 300",
    ),
}
"""Description and examples of each benchmark."""
REPEATS = {"step": 7, "data": 9, "eval": 5}


def add_options(name: str, parser: Parser) -> None:
    """Add the options of a benchmark."""
    add = parser.add_argument
    if name == "gpu":
        add("--out", type=Path, required=True, help="folder of the results: a text file per part")
        add("--seconds", type=float, default=120, help="time limit of a part")
        return
    if name == "step":
        add("subject", choices=("settings", "methods"), help="steps to compare")
    config = "configs/cityscapes.yaml" if name == "eval" else "configs/pascal.yaml"
    add("--config", default=config, help="YAML file")
    add_settings(parser)
    add_device(parser)
    if name in REPEATS:
        add("--repeats", type=at_least(1), default=REPEATS[name], help="rounds that are timed")
    if name != "eval":
        add("--images", type=Path, metavar="DIR", help="photos (default: generated, 500x375)")
    if name in ("step", "data"):
        add("--own", action="store_true", help="use the config's split files instead of photos")
    if name in ("step", "start"):
        add("--method", choices=[*CLASSES], default="unimatch", help="the method's script")
    if name == "step":
        add("--settings", nargs="+", choices=SETTINGS,
            help="tuned: bfloat16, channels_last, TF32; compiled: also compile (default: all; on a "
            "CPU without tf32 and compiled)")  # fmt: skip
    elif name == "eval":
        add("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"),
            help="height and width of the image")  # fmt: skip
    elif name == "start":
        add("--counts", type=int, nargs=3, default=PASCAL, metavar=tuple(map(str.upper, KINDS)),
            help="images in the split files (default: Pascal's)")  # fmt: skip
