"""Prediction of rasters larger than memory: blocks of many windows are saved in a folder, then
joined to GeoTIFFs."""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from inference.mask_encoding import MaskEncoding
from inference.outputs import PredictionWriter, confidence_bytes, save_arrays
from inference.overlay import mask_colours
from inference.predictor import Predictor, predict_sliding, to_mask, window_starts
from inference.raster import Raster, RasterSample, Rect, import_rasterio, open_sample
from util.colours import Colour
from util.config.data import Data
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError, printable
from util.io import SECONDS_PER_DAY, file_state, make_folder, remove_partials, replacing, write_text
from util.numbers import ceil_div

BLOCK_BYTES = 2**29
"""Memory for the probabilities of a block, or for its bands in float."""
TILE = 512
"""Side of the tiles of output files, in pixels; sides of blocks are multiples of it."""
PREVIEW = 2000
"""Longer side of an overlay, in pixels."""


class BandFormat(NamedTuple):
    """Bands and metadata of a GeoTIFF."""

    bands: int = 1
    kind: str = "uint8"
    nodata: int | None = None
    names: Mapping[int, str] = {}
    """Class names by value."""
    colours: Mapping[int, Colour] = {}


def predict_raster(
    network: nn.Module,
    files: Sequence[Path],
    name: str,
    writer: PredictionWriter,
    config: Config,
    device: torch.device,
) -> None:
    """Predict a raster, or a pair of rasters, and write the files.

    Finished blocks are kept in a folder beside the mask until all files are written, so that an
    interrupted command continues. Raises `UserError` for rasters that cannot be read, and for
    options that need the whole image.
    """
    if writer.args.probabilities:
        raise UserError(
            f"{files[0]}: --probabilities needs too much memory where images are predicted in "
            "windows. Fix: use --confidence, or cut the image into tiles"
        )
    if config.evaluation.mode == "resize":
        raise UserError(
            f"{files[0]}: evaluation.mode resize needs whole images, but the image is predicted in "
            "windows. Fix: cut it into tiles, or --set evaluation.mode=original"
        )
    predictor = Predictor(network, config, device, "original")
    with open_sample(files, config.data) as sample:
        blocks = divide(sample, max(config.num_classes, config.data.channels))
        folder = writer.path("masks", name).with_suffix(".parts")
        finished = FinishedBlocks(folder, files, blocks[0])
        predict_missing(predictor, sample, blocks, finished, writer.args.confidence)
        write_all(sample, blocks, finished, name, writer)
    shutil.rmtree(finished.folder, ignore_errors=True)


def predict_missing(
    predictor: Predictor,
    sample: RasterSample,
    blocks: list[Rect],
    finished: "FinishedBlocks",
    kind: str | None,
) -> None:
    """Predict the blocks that are not finished."""
    starts = [window_corners(sample, block, predictor.config.crop_size) for block in blocks]
    total = sum(len(tops) * len(lefts) for tops, lefts in starts)
    title = printable(sample.first.path.name)
    with tqdm(total=total, desc=title, unit="window", disable=None, leave=False) as bar:
        for number, (block, (tops, lefts)) in enumerate(zip(blocks, starts, strict=True)):
            if finished.path(number).exists():
                bar.update(len(tops) * len(lefts))
                continue
            probabilities, nodata_mask = predict_block(
                predictor, sample, block, tops, lefts, bar.update
            )
            layers = {"masks": to_mask(probabilities, nodata_mask)}
            if kind is not None:
                layers[kind] = confidence_bytes(probabilities, kind, nodata_mask)
            save_arrays(finished.path(number), **layers)


def divide(sample: RasterSample, layers: int) -> list[Rect]:
    """Divide a raster into blocks, of which `layers` of float32 fit into `BLOCK_BYTES`."""
    side = max(TILE, int((BLOCK_BYTES / (4 * layers)) ** 0.5) // TILE * TILE)
    return [
        Rect(top, left, min(side, sample.height - top), min(side, sample.width - left))
        for top in range(0, sample.height, side)
        for left in range(0, sample.width, side)
    ]


def window_corners(sample: RasterSample, block: Rect, window: int) -> tuple[list[int], list[int]]:
    """Return the tops and the lefts of the raster's windows that overlap a block."""
    sides = (
        (block.top, block.height, sample.height),
        (block.left, block.width, sample.width),
    )
    tops, lefts = (
        [s for s in window_starts(size, window, "shift") if begin - window < s < begin + length]
        for begin, length, size in sides
    )
    return tops, lefts


def predict_block(
    predictor: Predictor,
    sample: RasterSample,
    block: Rect,
    tops: list[int],
    lefts: list[int],
    report: Callable[[int], object],
) -> tuple[Tensor, np.ndarray | None]:
    """Return the probabilities `[C, h, w]` of a block, 0 where no window has data, and a bool mask
    `[h, w]` of its pixels without data (None if there are none).

    The windows are those of the whole raster, so that no border of a block is visible. Raises
    `UserError` where the probabilities are not finite.

    Args:
        tops, lefts: of the windows, see `window_corners`.
        report: is called with numbers of finished windows.
    """
    config, window = predictor.config, predictor.config.crop_size
    height = min(tops[-1] + window, sample.height) - tops[0]
    width = min(lefts[-1] + window, sample.width) - lefts[0]
    around = Rect(tops[0], lefts[0], height, width)
    rows, columns = block.within(around)
    nodata_mask = sample.nodata_mask(around)
    block_nodata_mask = None if nodata_mask is None else nodata_mask[rows, columns]
    if nodata_mask is not None and nodata_mask.all():
        report(len(tops) * len(lefts))
        return torch.zeros(config.num_classes, block.height, block.width), block_nodata_mask

    def is_empty(y: int, x: int, h: int, w: int) -> bool:
        empty = nodata_mask is not None and bool(nodata_mask[y : y + h, x : x + w].all())
        report(int(empty))
        return empty

    def predict(windows: Tensor) -> Tensor:
        report(len(windows))
        return predictor.predict_batch(windows)

    pixels = torch.from_numpy(sample.read(around)).permute(2, 0, 1)[None]
    probabilities = predict_sliding(
        predict, pixels, window, "shift",
        config.evaluation.window_batch, fade=True, skip=is_empty,
    )  # fmt: skip
    found = predictor.require_finite(probabilities[0, :, rows, columns], sample.first.path)
    return found, block_nodata_mask


class FinishedBlocks:
    """Predicted blocks of a raster in a folder, by number.

    Raises `UserError` for a folder of other files or blocks, or one written before these files
    changed.
    """

    def __init__(self, folder: Path, sources: Sequence[Path], first: Rect):
        self.folder, note = folder, folder / "source.txt"
        identity = f"blocks of {first.height}x{first.width}\n"
        identity += "".join("{} {} {}\n".format(*file_state(path)) for path in sources)
        identity = identity.encode("utf-8", "backslashreplace").decode()
        make_folder(folder)
        if note.exists() and note.read_text(encoding="utf-8") != identity:
            names = " or ".join(map(str, sources))
            raise UserError(
                f"{folder}: started by another version, or before {names} changed. Fix: remove "
                "this folder"
            )
        write_text(note, identity)

    def path(self, number: int) -> Path:
        return self.folder / f"{number:05}.npz"

    def layer(self, kind: str, blocks: list[Rect]) -> Iterator[tuple[Rect, np.ndarray]]:
        """Yield all blocks with their masks or confidences `[h, w]`."""
        for number, block in enumerate(blocks):
            with np.load(self.path(number)) as layers:
                yield block, layers[kind]


def write_all(
    sample: RasterSample,
    blocks: list[Rect],
    finished: FinishedBlocks,
    name: str,
    writer: PredictionWriter,
) -> None:
    """Write the files of a raster from its blocks; of a pair, with the earlier's georeferencing."""
    raster = sample.first
    kind = writer.args.confidence
    step = math.ceil(max(raster.height, raster.width) / PREVIEW)
    preview = np.zeros((ceil_div(raster.height, step), ceil_div(raster.width, step)), np.uint8)
    pixels = np.zeros(256, np.int64)
    for block, mask in finished.layer("masks", blocks):
        pixels += np.bincount(mask.ravel(), minlength=256)
        top, left = ceil_div(block.top, step), ceil_div(block.left, step)
        part = mask[top * step - block.top :: step, left * step - block.left :: step]
        preview[top : top + part.shape[0], left : left + part.shape[1]] = part
    writer.add_areas(name, (raster.height, raster.width), pixels)
    encoding = writer.encodings.get(True)
    masks: Iterable[tuple[Rect, np.ndarray]] = finished.layer("masks", blocks)
    if encoding is not None:
        masks = ((block, encoding.values(mask)) for block, mask in masks)
    form = mask_band_format(writer.data, encoding)
    write_geotiff(writer.path("masks", name), raster, masks, form)
    if kind is not None:
        layer = finished.layer(kind, blocks)
        # The probability of the most probable class is never 0; an entropy may be any value.
        form = BandFormat(nodata=0 if kind == "confidence" else None)
        write_geotiff(writer.path(kind, name), raster, layer, form)
    if "overlays" in writer.kinds:
        writer.save_overlay(name, sample.previews(step), preview)


def mask_band_format(data: Data, encoding: MaskEncoding | None) -> BandFormat:
    """Return the format of masks, with the colours and names of the classes unless the values are
    colours; the nodata value is 255, or the dataset's own ignored value."""
    if encoding is None:
        return BandFormat(
            nodata=IGNORE, names=dict(enumerate(data.classes)), colours=mask_colours(data)
        )
    if encoding.in_colour:
        return BandFormat(bands=3)
    names = {int(encoding.codes[index]): name for index, name in enumerate(data.classes)}
    if encoding.is_deep:
        return BandFormat(kind="uint16", nodata=encoding.ignored, names=names)
    return BandFormat(nodata=encoding.ignored, names=names, colours=encoding.colours)


def write_geotiff(
    path: Path, raster: Raster, blocks: Iterable[tuple[Rect, np.ndarray]], form: BandFormat
) -> None:
    """Write blocks `[h, w]` or `[h, w, 3]` as a tiled GeoTIFF with the georeferencing of a raster.

    Raises `UserError` when it cannot be written.
    """
    library = import_rasterio(raster.path)
    points, system = raster.file.gcps
    georeferencing = {"gcps": points, "crs": system} if points else {"crs": raster.file.crs}
    make_folder(path.parent)
    remove_partials(path.parent, idle=SECONDS_PER_DAY)
    try:
        with replacing(path) as partial, library.open(
            partial, "w", driver="GTiff", height=raster.height, width=raster.width,
            count=form.bands, dtype=form.kind, nodata=form.nodata, transform=raster.file.transform,
            tiled=True, blockxsize=TILE, blockysize=TILE, compress="deflate", bigtiff="if_safer",
            photometric="rgb" if form.bands == 3 else "minisblack",
            **georeferencing,
        ) as file:  # fmt: skip
            if form.colours:
                file.write_colormap(1, form.colours)
            file.update_tags(1, **{f"class_{value}": name for value, name in form.names.items()})
            for block, values in blocks:
                file.write(np.atleast_3d(values).transpose(2, 0, 1), window=block.window)
            if form.names:
                write_text(path.with_name(path.name + ".aux.xml"), category_names(form.names))
    except (OSError, library.errors.RasterioError) as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def category_names(names: Mapping[int, str]) -> str:
    """Return the names of values in GDAL's XML for a file beside the GeoTIFF, as QGIS reads it."""
    texts = (names.get(value, "") for value in range(max(names) + 1))
    rows = "".join(f"      <Category>{escape(text)}</Category>\n" for text in texts)
    return (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{rows}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
