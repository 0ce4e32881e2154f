"""Rasters predicted in windows: block by block into a folder, then into GeoTIFFs."""

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

from inference.blending import TILE, Plan, plan, predict_block
from inference.mask_encoding import MaskEncoding
from inference.outputs import Writer, confidence_bytes, save_arrays
from inference.overlay import mask_colours
from inference.predictor import to_mask
from inference.raster import Dates, Raster, Rect, open_dates, rasterio
from util.colours import Colour
from util.config.data import Data
from util.config.schema import Config
from util.config.types import IGNORE
from util.errors import UserError, printable
from util.io import DAY, make_folder, remove_partials, replacing, write_text

PREVIEW = 2000
"""Longer side of an overlay, in pixels."""


class Form(NamedTuple):
    """Format of a GeoTIFF."""

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
    """Write the files of a raster, or of a pair of rasters.

    Finished blocks are kept in a folder beside the mask until all files are written, so that a
    killed command continues. Raises `UserError` for rasters that cannot be read, and for options
    that need the whole image.
    """
    if writer.options.probabilities:
        raise UserError(
            f"{files[0]}: --probabilities needs too much memory where images are predicted in "
            "windows; use --confidence, or cut the image into tiles"
        )
    if config.evaluation.mode == "resize":
        raise UserError(
            f"{files[0]}: evaluation.mode resize needs whole images, but the image is predicted in "
            "windows; cut it into tiles, or --set evaluation.mode=original"
        )
    with open_dates(files, config.data) as dates:
        parts = Parts(writer.path("masks", name).with_suffix(".parts"), files)
        planned = plan(dates.height, dates.width, config.crop_size, config.num_classes)
        predict_parts(network, dates, planned, parts, writer.options.confidence, config, device)
        write_all(dates, planned, parts, name, writer)
    parts.remove()


def predict_parts(
    network: nn.Module,
    dates: Dates,
    planned: Plan,
    parts: "Parts",
    confidence: str | None,
    config: Config,
    device: torch.device,
) -> None:
    """Predict the blocks that are not finished."""
    total = sum(len(planned.windows(block)) for block in planned.blocks)
    title = printable(dates.first.path.name)
    with tqdm(total=total, desc=title, unit="window", disable=None, leave=False) as bar:
        for number, block in enumerate(planned.blocks):
            if parts.path(number).exists():
                bar.update(len(planned.windows(block)))
                continue
            scores = predict_block(network, dates, block, planned, config, device, bar.update)
            valid = dates.valid(block)
            void = None if valid is None else ~valid
            layers = {"masks": to_mask(scores, void)}
            if confidence is not None:
                layers[confidence] = confidence_bytes(scores, confidence, void)
            parts.save(number, layers)


class Parts:
    """Finished blocks of a raster in a folder, by number.

    Raises `UserError` where the folder was written for other files, or before these changed.
    """

    def __init__(self, folder: Path, sources: Sequence[Path]):
        self.folder, note = folder, folder / "source.txt"
        known = [(path.resolve(), path.stat()) for path in sources]
        identity = "".join(f"{path} {file.st_size} {file.st_mtime_ns}\n" for path, file in known)
        identity = identity.encode("utf-8", "backslashreplace").decode()
        make_folder(folder)
        if note.exists() and note.read_text(encoding="utf-8") != identity:
            names = " or ".join(map(str, sources))
            raise UserError(f"{folder}: begun before {names} changed; remove this folder")
        write_text(note, identity)

    def path(self, number: int) -> Path:
        return self.folder / f"{number:05}.npz"

    def save(self, number: int, layers: dict[str, np.ndarray]) -> None:
        save_arrays(self.path(number), **layers)

    def layer(self, kind: str, blocks: list[Rect]) -> Iterator[tuple[Rect, np.ndarray]]:
        """Yield all blocks with their masks or confidences `[h, w]`."""
        for number, block in enumerate(blocks):
            with np.load(self.path(number)) as layers:
                yield block, layers[kind]

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def write_all(dates: Dates, planned: Plan, parts: Parts, name: str, writer: Writer) -> None:
    """Write the files of a raster from its blocks; of a pair, with the earlier's georeferencing."""
    raster, confidence = dates.first, writer.options.confidence
    step = math.ceil(max(raster.height, raster.width) / PREVIEW)
    small = np.zeros((-(-raster.height // step), -(-raster.width // step)), np.uint8)
    pixels = np.zeros(256, np.int64)
    for block, mask in parts.layer("masks", planned.blocks):
        pixels += np.bincount(mask.ravel(), minlength=256)
        top, left = -(-block.top // step), -(-block.left // step)
        some = mask[top * step - block.top :: step, left * step - block.left :: step]
        small[top : top + some.shape[0], left : left + some.shape[1]] = some
    writer.add_areas(name, (raster.height, raster.width), pixels)
    original = writer.encoding(ignoring=True)
    masks: Iterable[tuple[Rect, np.ndarray]] = parts.layer("masks", planned.blocks)
    if original is not None:
        masks = ((block, original.values(mask)) for block, mask in masks)
    write_geotiff(writer.path("masks", name), raster, masks, mask_form(writer.data, original))
    if confidence is not None:
        layer = parts.layer(confidence, planned.blocks)
        # The probability of the likeliest class is never 0; an entropy may be any value.
        form = Form(nodata=0 if confidence == "confidence" else None)
        write_geotiff(writer.path(confidence, name), raster, layer, form)
    if "overlays" in writer.kinds:
        writer.save_overlay(name, dates.previews(step), small)


def mask_form(data: Data, original: MaskEncoding | None) -> Form:
    """Return the format of masks: with colours and names of classes unless they hold colours; the
    nodata value is 255, or the dataset's own ignored value."""
    if original is None:
        return Form(nodata=IGNORE, names=dict(enumerate(data.classes)), colours=mask_colours(data))
    if original.in_colour:
        return Form(bands=3)
    names = {int(original.codes[index]): name for index, name in enumerate(data.classes)}
    if original.is_deep:
        return Form(kind="uint16", nodata=original.ignored, names=names)
    return Form(nodata=original.ignored, names=names, colours=original.colours)


def write_geotiff(
    path: Path, raster: Raster, blocks: Iterable[tuple[Rect, np.ndarray]], form: Form
) -> None:
    """Write blocks `[h, w]` or `[h, w, 3]` as a tiled GeoTIFF with the georeferencing of a raster.

    Raises `UserError` when it cannot be written.
    """
    library = rasterio(raster.path)
    points, system = raster.file.gcps
    place = {"gcps": points, "crs": system} if points else {"crs": raster.file.crs}
    make_folder(path.parent)
    remove_partials(path.parent, idle=DAY)
    try:
        with replacing(path) as partial, library.open(
            partial, "w", driver="GTiff", height=raster.height, width=raster.width,
            count=form.bands, dtype=form.kind, nodata=form.nodata, transform=raster.file.transform,
            tiled=True, blockxsize=TILE, blockysize=TILE, compress="deflate", bigtiff="if_safer",
            photometric="rgb" if form.bands == 3 else "minisblack", **place,
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
    listed = (names.get(value, "") for value in range(max(names) + 1))
    rows = "".join(f"      <Category>{escape(name)}</Category>\n" for name in listed)
    return (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{rows}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
