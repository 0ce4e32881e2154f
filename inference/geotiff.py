"""Prediction of rasters in windows: blocks are saved in a folder, then joined to GeoTIFFs."""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from inference.blending import TILE, BlockPlan, plan_blocks, predict_block
from inference.mask_encoding import MaskEncoding
from inference.outputs import Writer, confidence_bytes, save_arrays
from inference.overlay import mask_colours
from inference.predictor import Predictor, to_mask
from inference.raster import Raster, RasterSample, Rect, import_rasterio, open_sample
from util.colours import Colour
from util.config.data import Data
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError, printable
from util.io import SECONDS_PER_DAY, file_state, make_folder, remove_partials, replacing, write_text

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
    writer: Writer,
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
            "windows; use --confidence, or cut the image into tiles"
        )
    if config.evaluation.mode == "resize":
        raise UserError(
            f"{files[0]}: evaluation.mode resize needs whole images, but the image is predicted in "
            "windows; cut it into tiles, or --set evaluation.mode=original"
        )
    predictor = Predictor(network, config, device, "original")
    with open_sample(files, config.data) as sample:
        finished = FinishedBlocks(writer.path("masks", name).with_suffix(".parts"), files)
        plan = plan_blocks(sample.height, sample.width, config.crop_size, config.num_classes)
        predict_missing(predictor, sample, plan, finished, writer.args.confidence)
        write_all(sample, plan, finished, name, writer)
    shutil.rmtree(finished.folder, ignore_errors=True)


def predict_missing(
    predictor: Predictor,
    sample: RasterSample,
    plan: BlockPlan,
    finished: "FinishedBlocks",
    kind: str | None,
) -> None:
    """Predict the blocks that are not finished."""
    windows = [plan.windows(block) for block in plan.blocks]
    title = printable(sample.first.path.name)
    total = sum(map(len, windows))
    with tqdm(total=total, desc=title, unit="window", disable=None, leave=False) as bar:
        for number, block in enumerate(plan.blocks):
            if finished.path(number).exists():
                bar.update(len(windows[number]))
                continue
            probabilities = predict_block(predictor, sample, block, windows[number], bar.update)
            void = sample.void(block)
            layers = {"masks": to_mask(probabilities, void)}
            if kind is not None:
                layers[kind] = confidence_bytes(probabilities, kind, void)
            save_arrays(finished.path(number), **layers)


class FinishedBlocks:
    """Predicted blocks of a raster in a folder, by number.

    Raises `UserError` for a folder of other files, or one written before these files changed.
    """

    def __init__(self, folder: Path, sources: Sequence[Path]):
        self.folder, note = folder, folder / "source.txt"
        identity = "".join("{} {} {}\n".format(*file_state(path)) for path in sources)
        identity = identity.encode("utf-8", "backslashreplace").decode()
        make_folder(folder)
        if note.exists() and note.read_text(encoding="utf-8") != identity:
            names = " or ".join(map(str, sources))
            raise UserError(f"{folder}: started before {names} changed; remove this folder")
        write_text(note, identity)

    def path(self, number: int) -> Path:
        return self.folder / f"{number:05}.npz"

    def layer(self, kind: str, blocks: list[Rect]) -> Iterator[tuple[Rect, np.ndarray]]:
        """Yield all blocks with their masks or confidences `[h, w]`."""
        for number, block in enumerate(blocks):
            with np.load(self.path(number)) as layers:
                yield block, layers[kind]


def write_all(
    sample: RasterSample, plan: BlockPlan, finished: FinishedBlocks, name: str, writer: Writer
) -> None:
    """Write the files of a raster from its blocks; of a pair, with the earlier's georeferencing."""
    raster = sample.first
    kind = writer.args.confidence
    step = math.ceil(max(raster.height, raster.width) / PREVIEW)
    preview = np.zeros((-(-raster.height // step), -(-raster.width // step)), np.uint8)
    pixels = np.zeros(256, np.int64)
    for block, mask in finished.layer("masks", plan.blocks):
        pixels += np.bincount(mask.ravel(), minlength=256)
        top, left = -(-block.top // step), -(-block.left // step)
        part = mask[top * step - block.top :: step, left * step - block.left :: step]
        preview[top : top + part.shape[0], left : left + part.shape[1]] = part
    writer.add_areas(name, (raster.height, raster.width), pixels)
    encoding = writer.encoding(ignoring=True)
    masks: Iterable[tuple[Rect, np.ndarray]] = finished.layer("masks", plan.blocks)
    if encoding is not None:
        masks = ((block, encoding.values(mask)) for block, mask in masks)
    form = mask_band_format(writer.data, encoding)
    write_geotiff(writer.path("masks", name), raster, masks, form)
    if kind is not None:
        layer = finished.layer(kind, plan.blocks)
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
                window = raster.window(block)
                file.write(np.atleast_3d(values).transpose(2, 0, 1), window=window)
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
