"""Compare trained networks in one picture, with a row for each.

Columns are images, shown above with their ground truth. The split and the class colours are those
of the first checkpoint's config.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.cli import checkpoint_config, split_of
from model.files import find_checkpoint
from util.cli import add_settings, exit_with_one_line, importing
from util.colours import palette
from util.config.data import Data
from util.errors import UserError, counted
from util.io import make_folder, write_atomically
from util.parser import Parser

if TYPE_CHECKING:
    from PIL import Image

    from dataset.samples import Sample

SIDE = 1.1
"""Inches: of an image in the picture."""
OPACITY = 0.65
"""Of masks over images."""


def main() -> None:
    options = command_line().parse_args()
    with exit_with_one_line():
        if options.out.suffix not in (".png", ".svg", ".pdf"):
            raise UserError(f"--out {options.out}: expected a name that ends in .png, .svg or .pdf")
        if options.count < 1:
            raise UserError(f"--count {options.count}: expected at least 1")
        if options.names and len(options.names) != len(options.checkpoints):
            raise UserError(
                f"--names: {counted(len(options.names), 'name')} for "
                f"{counted(len(options.checkpoints), 'checkpoint')}; give one for each"
            )
        paths = [find_checkpoint(path, "model", "CHECKPOINT") for path in options.checkpoints]
        names = options.names or [str(given) for given in options.checkpoints]
        if len(set(names)) < len(names):
            raise UserError("--names: a name is given twice; each row needs its own")
        with importing():
            from dataset.folders import read_samples

            config = checkpoint_config(paths[0], settings=options.set)
            samples = read_samples(split_of(config, options.split), config.data, masks=True).samples
        chosen = choose(samples, options.images, options.count)
        draw(dict(zip(names, paths, strict=True)), chosen, options.set, options.out)
        print(f"{options.out}: {counted(len(chosen), 'image')}, {counted(len(paths), 'network')}")


def choose(samples: "Sequence[Sample]", words: Sequence[str], count: int) -> "list[Sample]":
    """Return the first sample whose image path holds each of `words`; without any, `count` samples
    evenly spread over the split.

    Raises `UserError` for a word that no path holds.
    """
    if not words:
        spread = np.linspace(0, len(samples) - 1, min(count, len(samples)))
        return [samples[index] for index in spread.round().astype(int)]
    found = []
    for word in words:
        sample = next((sample for sample in samples if word in sample.image), None)
        if sample is None:
            raise UserError(f"--images {word}: no image of the split has this in its path")
        found.append(sample)
    return found


def draw(
    checkpoints: Mapping[str, Path], samples: "Sequence[Sample]", settings: Sequence[str], out: Path
) -> None:
    """Write the picture: rows by name, checkpoints as values; their configs are read with
    `settings`."""
    with importing():
        from dataset.bands import pictures
        from dataset.reader import Reader
        from inference.overlay import overlay
        from inference.predictor import Predictor
        from model.trained import load_trained
        from util import distributed
        from util.plotting import save
    make_folder(out.parent)
    device = distributed.choose_device("auto")
    configs = {name: checkpoint_config(path, None, settings) for name, path in checkpoints.items()}
    data = next(iter(configs.values())).data
    for name, config in configs.items():
        if config.data.classes != data.classes:
            raise UserError(f"{name}: its classes differ from those of {next(iter(configs))}")
    read = [Reader(data).both(sample) for sample in samples]
    dates = zip(*(pictures(pixels, data) for pixels, _ in read), strict=True)
    rows: dict[str, Any] = dict(zip(("image", "later image"), dates, strict=False))
    *_, shown = rows.values()

    def over_images(masks: Iterable[np.ndarray]) -> "list[Image.Image]":
        pairs = zip(shown, masks, strict=True)
        return [overlay(picture, mask, data, OPACITY) for picture, mask in pairs]

    rows["ground truth"] = over_images(np.array(truth) for _, truth in read)
    for name, path in checkpoints.items():
        network = load_trained(configs[name], path, "model", device)
        predictor = Predictor(network, configs[name], device)
        reader = Reader(configs[name].data)
        rows[name] = over_images(predictor.mask(reader.both(sample)[0]) for sample in samples)
    figure = sheet(rows, data)
    write_atomically(out, lambda file: save(figure, file, out.suffix[1:], dpi=150))


def sheet(rows: Mapping[str, Any], data: Data) -> Any:
    """Return a figure with named rows of pictures, above the colours of the classes."""
    from matplotlib.patches import Patch

    from util.plotting import new_figure

    columns = len(next(iter(rows.values())))
    figure = new_figure(max(5, SIDE * columns + 1), SIDE * len(rows) + 0.4)
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
        for name, colour in zip(data.classes, palette(data), strict=True)
    ]
    figure.legend(handles=patches, ncols=min(len(patches), 6), loc="outside lower center")
    return figure


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        (
            "python -m tools.compare runs/mine/supervised runs/mine/fixmatch --out compare.png",
            "python -m tools.compare runs/a runs/b --names SupOnly UniMatch --split test "
            "--images patient101_frame01_slice_4 --out compare.svg",
        ),
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
        help="show the first image whose path holds TEXT, for each TEXT (default: --count images)",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=6, help="images, evenly spread over the split")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".png, .svg or .pdf to write"
    )
    add_settings(parser)
    return parser


if __name__ == "__main__":
    main()
