"""Compare trained networks in one picture, with a row for each.

Columns are images, shown above their ground truth. The split and the class colours are those of the
first checkpoint's config.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset.samples import Sample
from inference.cli import checkpoint_config, is_set, split_of
from model.files import find_checkpoint, network_in
from util.cli import add_settings, exit_with_one_line, importing
from util.colours import IGNORE_COLOUR, palette
from util.config.data import Data
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError, counted
from util.io import make_folder, require_new, write_atomically
from util.parser import Parser, at_least
from util.plotting import chart, new_figure, save

IMAGE_INCHES = 1.1
"""Side of an image in the figure."""
LETTER_INCHES = 0.075
"""Width of a letter, rounded up."""
OPACITY = 0.65
"""Opacity of masks over images."""


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        if args.out.suffix not in (".png", ".svg", ".pdf"):
            raise UserError(f"--out {args.out}: expected a name that ends in .png, .svg or .pdf")
        require_new(args.out)
        if args.names and len(args.names) != len(args.checkpoints):
            raise UserError(
                f"--names: {counted(len(args.names), 'name')} for "
                f"{counted(len(args.checkpoints), 'checkpoint')}. Fix: give one for each"
            )
        paths = [find_checkpoint(path, None, "CHECKPOINT") for path in args.checkpoints]
        names = args.names or [str(path) for path in args.checkpoints]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            source = "--names" if args.names else "CHECKPOINT"
            raise UserError(
                f"{source}: '{repeated}' is given twice; expected a different one for each row"
            )
        with importing():
            from dataset.folders import read_samples
            from dataset.overlap import changed_since_training

            config = checkpoint_config(paths[0], settings=args.set)
            split = read_samples(split_of(config, args.split), config.data, masks=True)
        if args.split == "val" and not is_set("data.val", args.set):
            for name, path in zip(names, paths, strict=True):
                if problem := changed_since_training(path.parent, split):
                    print(f"warning: {name}: {problem}")
        samples = choose_samples(split.samples, args.images, args.count)
        checkpoints = dict(zip(names, paths, strict=True))
        write_comparison(checkpoints, samples, args.set, config.data, args.out)
        images, networks = counted(len(samples), "image"), counted(len(paths), "network")
        print(f"{args.out}: {images}, {networks}")


def write_comparison(
    checkpoints: Mapping[str, Path],
    samples: Sequence[Sample],
    settings: Sequence[str],
    data: Data,
    out: Path,
) -> None:
    """Write images, their ground truth and the predictions of all checkpoints as one picture."""
    make_folder(out.parent)
    figure = draw_sheet(*compared_rows(checkpoints, samples, settings), data)
    write_atomically(out, lambda file: save(figure, file, out.suffix[1:], dpi=150))


def choose_samples(samples: Sequence[Sample], words: Sequence[str], count: int) -> list[Sample]:
    """Return the first sample whose image path contains each of `words`; without words, `count`
    samples evenly spread over the split.

    Raises `UserError` for a word that no path contains.
    """
    if not words:
        spread = np.linspace(0, len(samples) - 1, min(count, len(samples)))
        return [samples[index] for index in spread.round().astype(int)]
    chosen = []
    for word in words:
        sample = next((sample for sample in samples if word in sample.image), None)
        if sample is None:
            raise UserError(f"--images {word}: no image of the split has this in its path")
        chosen.append(sample)
    return chosen


def compared_rows(
    checkpoints: Mapping[str, Path], samples: Sequence[Sample], settings: Sequence[str]
) -> tuple[dict[str, list[Image.Image]], bool]:
    """Return the images, their ground truth and the predictions of all checkpoints, as rows of
    pictures by name, and whether some pixels are ignored; the configs of the checkpoints are read
    with `settings`.

    Raises `UserError` as `common_data`.
    """
    with importing():
        from dataset.bands import rgb_previews
        from dataset.reader import Reader
        from inference.overlay import overlay
        from inference.predictor import Predictor
        from model.trained import load_trained
        from util import distributed
    device = distributed.choose_device("auto")
    configs = {name: checkpoint_config(path, None, settings) for name, path in checkpoints.items()}
    data = common_data(configs)
    images, masks = zip(*map(Reader(data).image_and_mask, samples), strict=True)
    dates = zip(*(rgb_previews(pixels, data) for pixels in images), strict=True)
    rows = dict(zip(("image", "later image"), map(list, dates), strict=False))
    *_, last = rows.values()  # the later date of pairs
    predictions = {"ground truth": list(map(np.array, masks))}
    for name, path in checkpoints.items():
        config = configs[name]
        same_input = (config.data.bands, config.data.image_range) == (data.bands, data.image_range)
        inputs = images if same_input else map(Reader(config.data).image, samples)
        network = load_trained(config, path, network_in(path), device)
        predictions[name] = list(map(Predictor(network, config, device).mask, inputs))
    for name, row_masks in predictions.items():
        pairs = zip(last, row_masks, strict=True)
        rows[name] = [overlay(picture, mask, data, OPACITY) for picture, mask in pairs]
    return rows, any((mask == IGNORE).any() for mask in predictions["ground truth"])


def common_data(configs: Mapping[str, Config]) -> Data:
    """Return the first config's data section; raises `UserError` where another one has other
    classes, or pairs instead of single images."""
    first, *others = configs
    data = configs[first].data
    for name in others:
        other = configs[name].data
        if other.classes != data.classes:
            raise UserError(f"{name}: its classes differ from those of {first}")
        if other.dates != data.dates:
            raise UserError(
                f"{name}: its images per sample ({other.dates}) differ from those of {first} "
                f"({data.dates})"
            )
    return data


def text_inches(texts: Sequence[str]) -> float:
    """Return an upper bound of the width of the longest text."""
    wide = "WF"  # such as Chinese characters
    letters = [sum(1 + (unicodedata.east_asian_width(c) in wide) for c in text) for text in texts]
    return LETTER_INCHES * max(letters)


@chart
def draw_sheet(rows: Mapping[str, Sequence[Image.Image]], has_ignored: bool, data: Data) -> Any:
    """Return a figure with named rows of pictures, above the colours of the classes, and of ignored
    pixels if there are any; its size leaves room for all names."""
    from matplotlib.patches import Patch

    columns = len(next(iter(rows.values())))
    width = max(5, IMAGE_INCHES * columns + text_inches([*rows]) + 0.5)
    named = [*zip(data.classes, palette(data), strict=True)]
    named += [("ignored", IGNORE_COLOUR)] if has_ignored else []
    entries = min(6, len(named), max(1, int(width / (text_inches(data.classes) + 0.5))))
    legend_inches = 0.2 * math.ceil(len(named) / entries) + 0.3
    figure = new_figure(width, IMAGE_INCHES * len(rows) + legend_inches)
    for axes, (name, pictures) in zip(
        figure.subplots(len(rows), columns, squeeze=False), rows.items(), strict=True
    ):
        for axis, picture in zip(axes, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center")
    patches = [
        Patch(facecolor="#{:02x}{:02x}{:02x}".format(*colour), edgecolor="#808080", label=name)
        for name, colour in named
    ]
    figure.legend(handles=patches, ncols=entries, loc="outside lower center")
    return figure


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.compare runs/mine/supervised runs/mine/fixmatch --out compare.png",
        "python -m tools.compare runs/a runs/b --names SupOnly UniMatch --split test "
        "--images patient101_frame01_slice_4 --out compare.svg",
    )
    parser.add_argument(
        "checkpoints",
        nargs="+",
        type=Path,
        metavar="CHECKPOINT",
        help="checkpoint files, run directories (their best checkpoint) or published folders",
    )
    parser.add_argument("--names", nargs="+", help="name of each row (default: its path)")
    parser.add_argument(
        "--split", choices=("val", "test"), default="val", help="split the images are taken from"
    )
    parser.add_argument(
        "--images", nargs="+", default=[], metavar="TEXT",
        help="show the first image with TEXT in its path, for each TEXT (default: --count images)",
    )  # fmt: skip
    parser.add_argument(
        "--count", type=at_least(1), default=6, help="images, evenly spread over the split"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".png, .svg or .pdf to write"
    )
    add_settings(parser)
    return parser


if __name__ == "__main__":
    main()
