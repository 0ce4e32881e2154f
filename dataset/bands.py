"""Image files of any depth and number of bands -> the bands that the config names."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import TiffImageFile

from dataset.file_content import has_one_channel, has_pages, pillow_image, read_content
from dataset.image_files import is_deep, reporting_unreadable
from dataset.tiff import FileBands, tiff_bands
from util.config.data import Bands, Data
from util.errors import UserError, counted


def read_bands(path: Path, data: Data) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the bands of an image `[H, W, C]`, uint8, or float32 in [0, 1] by `data.image_range`,
    0 without data; and a bool mask `[H, W]`, True without data (None if there are none).

    With `data.bands` rgb, grey, palette and transparent images are converted. Raises `UserError`
    for a file that is missing or damaged, has other bands than the config says, has more than 8
    bits without a range, has 8 bits where the range is for deeper images, or holds values that are
    not finite numbers.
    """
    values, nodata_mask = stored_bands(path, data.bands, data.max_megapixels)
    return to_range(values, nodata_mask, data, path), nodata_mask


def stored_bands(
    path: Path, bands: Bands, max_megapixels: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the stored values of an image `[H, W, C]`, 0 without data, and a bool mask `[H, W]` as
    `read_bands` does.

    Raises `UserError` as `read_bands` does, except for the range.
    """
    content = read_content(path, max_megapixels, () if isinstance(bands, str) else bands)
    values = content.pixels
    if not isinstance(values, np.ndarray):
        values = image_values(values, bands)
    values = clean(choose_bands(values, bands, path), content.nodata_mask, path)
    return values, content.nodata_mask


def bands_of(path: Path) -> FileBands:
    """Return the bands of a file; raises `UserError` for an unreadable file."""
    with reporting_unreadable(path):
        image = pillow_image(path)
        if image is None:
            return tiff_bands(path)
        with image:
            if isinstance(image, TiffImageFile) and (
                image.tag_v2.get(Tag.SamplesPerPixel, 1) not in (1, 3) or has_pages(image)
            ):  # Pillow hides some bands or pages
                return tiff_bands(path)
            return FileBands("grey" if has_one_channel(image) else "rgb")


def is_grey(path: Path) -> bool:
    """Return True if the header of an image names one band; False for an unreadable file."""
    try:
        return bands_of(path).selection == "grey"
    except UserError:
        return False


def rgb_previews(pixels: np.ndarray, data: Data) -> list[Image.Image]:
    """Return the RGB preview of each date of `[H, W, C]`, see `rgb_preview`."""
    return [rgb_preview(date, data) for date in np.split(pixels, data.dates, axis=2)]


def rgb_preview(pixels: np.ndarray, data: Data) -> Image.Image:
    """Return an RGB image of three bands of `[H, W, C]`, as `read_bands` returns them: red, green
    and blue, else the first ones, of the earlier date."""
    last = data.num_bands - 1
    shown = pixels[..., data.rgb_channels or [min(band, last) for band in range(3)]]
    if shown.dtype != np.uint8:
        shown = (shown * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(shown))


def image_values(image: Image.Image, bands: Bands) -> np.ndarray:
    """Return the values of a Pillow image, `[H, W]`, or `[H, W, N]` of several bands: grey as one
    band, palettes as colours, and RGB where `bands` asks for it."""
    if is_deep(image):
        return np.asarray(image)
    if bands == "rgb":
        return np.asarray(image.convert("RGB"))
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    return np.asarray(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB"))


def choose_bands(values: np.ndarray, bands: Bands, path: Path) -> np.ndarray:
    """Select the bands that the config names, `[H, W, C]`; raises `UserError` for other bands."""
    values = values if values.ndim == 3 else values[..., None]
    count = values.shape[2]
    if bands == "rgb" and count in (1, 3, 4):
        return values[..., :3] if count > 1 else values.repeat(3, axis=2)
    if bands == "grey" and count == 1:
        return values
    if isinstance(bands, str):
        raise UserError(
            f"{path}: the image has {counted(count, 'band')}, but data.bands is {bands}. Fix: set "
            f"it to {'rgb, or ' if count in (3, 4) else ''}the numbers of bands to use, such as [1]"
        )
    if max(bands) > count:
        raise UserError(
            f"{path}: the image has {counted(count, 'band')}, but data.bands names band "
            f"{max(bands)}; expected at most {count}. Fix: correct data.bands"
        )
    return values[..., [band - 1 for band in bands]]


def union_of_masks(nodata_masks: Iterable[np.ndarray | None]) -> np.ndarray | None:
    """Combine bool masks `[H, W]` of pixels without data; None stands for a mask without any."""
    masks = [mask for mask in nodata_masks if mask is not None]
    return np.logical_or.reduce(masks) if masks else None


def _zeroed(nodata_mask: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """Set values `[H, W, C]` to 0 where there is no data (`nodata_mask`: bool `[H, W]`)."""
    if nodata_mask is None:
        return values
    return np.where(nodata_mask[..., None], values.dtype.type(0), values)


def clean(values: np.ndarray, nodata_mask: np.ndarray | None, path: Path) -> np.ndarray:
    """Return stored values `[H, W, C]` of an image, 0 without data (`nodata_mask`: bool `[H, W]`);
    raises `UserError` for values that are not finite numbers."""
    values = _zeroed(nodata_mask, values)
    if values.dtype.kind not in "buif":
        raise UserError(f"{path}: the image holds values of type {values.dtype}, expected numbers")
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        raise UserError(
            f"{path}: NaN or infinity in {counted(np.size(finite) - finite.sum(), 'value')}. Fix: "
            "replace them, for example by 0"
        )
    return values


def divisors(stds: np.ndarray) -> np.ndarray:
    """Return what to divide bands by, from their standard deviations: 1 for a constant band."""
    return np.where(stds >= 1e-3, stds, 1)


def to_range(
    values: np.ndarray, nodata_mask: np.ndarray | None, data: Data, path: Path
) -> np.ndarray:
    """Scale values `[H, W, C]`, as `clean` returns them, by `data.image_range`; returns and raises
    as `read_bands`."""
    if data.image_range is None:
        if values.dtype == np.uint8:
            return values
        raise UserError(
            f"{path}: the image holds {values.dtype}, its values are {values.min():g} to "
            f"{values.max():g}. Fix: set data.image_range to the values of black and white"
        )
    if values.dtype == np.uint8:
        if not data.takes_8_bits:
            raise UserError(
                f"{path}: 8 bits, but data.image_range {list(data.image_range)} is for deeper "
                "images. Fix: convert the image from its deeper source, or, if all images have 8 "
                "bits, remove the range"
            )
        return values.astype(np.float32) / 255
    low, high = np.array(data.image_range).T
    return _zeroed(nodata_mask, np.clip((values - low) / (high - low), 0, 1).astype(np.float32))
