"""Content of image and mask files: one place opens them, and one rule chooses the library."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.ExifTags import Base as Tag

from dataset import tiff
from dataset.image_files import (
    MAX_MEGAPIXELS,
    decode_upright,
    exif_orientation,
    open_image,
    orientation_of,
    reporting_unreadable,
)
from util.config.label_map import MAX_VALUE
from util.errors import UserError

WHITE_IS_ZERO, UNSIGNED, SIGNED = 0, 1, 2
"""Values of the tags PhotometricInterpretation and SampleFormat."""
TIFF_JPEG = (6, 7)
"""Values of the tag Compression."""
ANIMATED = ("GIF", "PNG", "WEBP")
"""Formats that may hold several pictures to be shown one after the other."""


class Content(NamedTuple):
    """Decoded content of a file, as a viewer shows it."""

    pixels: Image.Image | np.ndarray
    """A Pillow image; an array `[H, W]` or `[H, W, N]` where Pillow would lose something."""
    alpha: np.ndarray | None = None
    """`[H, W]`: the alpha of an array; 0 is transparent."""
    grey_bits: int = 8
    """Bits of a grey value in the file: 1, 2, 4, or 8 for 8 and more."""
    is_lossy: bool = False
    """True where the compression changes values."""
    is_inverted: bool = False
    """True for grey values of a TIFF that stores white as 0: `pixels` have it as 255."""
    nodata_mask: np.ndarray | None = None
    """`[H, W]`, bool: pixels without data, by the nodata value, mask or alpha of a TIFF, or
    by a sidecar mask."""
    nodata_value_mask: np.ndarray | None = None
    """`[H, W]`, bool: pixels of `nodata_mask` that only the nodata value marks, if it is a whole
    number that masks may hold."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        if isinstance(self.pixels, np.ndarray):
            return self.pixels.shape[1], self.pixels.shape[0]
        return self.pixels.size

    @property
    def mode(self) -> str:
        """Pillow's name of the mode, or type and number of bands of an array."""
        if not isinstance(self.pixels, np.ndarray):
            return self.pixels.mode
        count = self.pixels.shape[2] if self.pixels.ndim == 3 else 1
        return f"{self.pixels.dtype} of {count} bands" if count > 1 else str(self.pixels.dtype)


def read_content(
    path: Path, max_megapixels: int = MAX_MEGAPIXELS, numbers: Collection[int] = ()
) -> Content:
    """Read an image or mask file: by Pillow, or what it cannot represent by another library.

    `numbers`: read all bands of a TIFF as they are stored, not as colours; these bands (from 1) are
    data, even if the file says that one of them is alpha.

    Raises `UserError` for a file that is missing, damaged, too large or holds several images.
    """
    with reporting_unreadable(path):
        content = _read(path, max_megapixels, numbers)
    sidecar = Path(f"{path}.msk")  # GDAL's mask of a raster
    if not os.path.isfile(sidecar):
        return content
    return _masked(content, _read_sidecar(sidecar, content, path, max_megapixels))


def _masked(content: Content, nodata_mask: np.ndarray) -> Content:
    """Add pixels without data that a mask or alpha marks."""
    by_value = content.nodata_value_mask
    if by_value is not None:
        by_value = by_value & ~nodata_mask
    if content.nodata_mask is not None:
        nodata_mask = nodata_mask | content.nodata_mask
    return content._replace(nodata_mask=nodata_mask, nodata_value_mask=by_value)


def _read(path: Path, max_megapixels: int, numbers: Collection[int]) -> Content:
    """Read a file as `read_content` does, without its sidecar mask."""
    image = pillow_image(path)
    if image is None:
        return _read_tiff(path, max_megapixels, numbers)
    with image:
        if numbers and image.format == "TIFF":
            tiff.refuse_large(path, image.size, max_megapixels)
            return _read_tiff(path, max_megapixels, numbers)
        return _decode(image, path, max_megapixels)


def _read_tiff(path: Path, max_megapixels: int, numbers: Collection[int]) -> Content:
    values, alpha, nodata, masks, orientation = tiff.read_tiff(path, bool(numbers), max_megapixels)
    alpha = [band for band in alpha if band + 1 not in numbers]
    values = _oriented(values, orientation)
    masks = [_oriented(mask, orientation) for mask in masks]
    content = Content(values) if numbers else _without_alpha(values, alpha)
    masks += [values[..., band] for band in alpha[:1]]
    return _with_nodata(content, values, nodata, masks)


def _decode(image: ImageFile.ImageFile, path: Path, max_megapixels: int) -> Content:
    refuse_several(image, path)
    tiff.refuse_large(path, image.size, max_megapixels)
    if is_deep_colour(image):
        values = _read_deep_png(path)
        alpha = [values.shape[2] - 1] if values.shape[2] in (2, 4) else []
        return _without_alpha(_oriented(values, orientation_of(image)), alpha)
    bits = _grey_bits(image)
    is_lossy = _is_lossy(image, path)
    if image.format != "TIFF":
        return Content(decode_upright(image), grey_bits=bits, is_lossy=is_lossy)
    tags = image.tag_v2  # type: ignore[attr-defined]
    nodata = tags.get(tiff.GDAL_NODATA_TAG)
    masks = []
    if has_pages(image):
        orientation = orientation_of(image)
        masks = [_oriented(mask, orientation) for mask in tiff.mask_pages(path)]
    pixels = decode_upright(image)
    if "A" in pixels.getbands():
        masks.append(np.asarray(pixels.getchannel("A")))
    white = tags.get(Tag.PhotometricInterpretation) == WHITE_IS_ZERO
    is_inverted = white and pixels.mode == "L"
    values = np.asarray(pixels) // (255 // (2**bits - 1)) if bits in (2, 4) else np.asarray(pixels)
    content = Content(pixels, grey_bits=bits, is_lossy=is_lossy, is_inverted=is_inverted)
    if pixels.mode == "I" and tags.get(Tag.SampleFormat, (UNSIGNED,))[0] == UNSIGNED:
        values = values.view(np.uint32)  # Pillow reads these numbers as signed
        content = content._replace(pixels=values)
    return _with_nodata(content, 2**bits - 1 - values if is_inverted else values, nodata, masks)


def _with_nodata(
    content: Content, values: np.ndarray, nodata: object, masks: list[np.ndarray]
) -> Content:
    """Add the pixels without data, by the stored values, GDAL's tag, and masks (0 without data)."""
    nodata_mask = tiff.nodata_mask_of(values, nodata, ())
    value = tiff.nodata_value(nodata)
    is_index = value is not None and 0 <= value <= MAX_VALUE and value.is_integer()
    content = content._replace(
        nodata_mask=nodata_mask, nodata_value_mask=nodata_mask if is_index else None
    )
    masked = tiff.nodata_mask_of(values, None, masks) if masks else None
    return content if masked is None else _masked(content, masked)


def _read_sidecar(sidecar: Path, content: Content, path: Path, max_megapixels: int) -> np.ndarray:
    """Read GDAL's mask of a raster, `NAME.tif.msk`: True `[H, W]` where no band has data."""
    mask = read_content(sidecar, max_megapixels, numbers=[1])
    bands = np.asarray(mask.pixels)
    largest = bands if bands.ndim == 2 else bands.max(axis=2)
    nodata_mask = _oriented(largest == 0, exif_orientation(path))
    if nodata_mask.shape[::-1] != content.size:
        found, expected = ("x".join(map(str, size)) for size in (mask.size, content.size))
        raise UserError(f"{sidecar}: the nodata mask is {found}, expected {expected} as {path}")
    return nodata_mask


def load_picture(path: Path) -> Image.Image:
    """Read an 8-bit file; raises `UserError` as `read_content` does, and for deeper files."""
    content = read_content(path)
    if isinstance(content.pixels, np.ndarray):
        raise UserError(f"{path}: {content.mode}; expected an image of 8 bits. Fix: convert it")
    return content.pixels


def _read_deep_png(path: Path) -> np.ndarray:
    """Read `[H, W, N]` of 16 bits."""
    import torch  # rarely needed, and slow to import
    from torchvision.io import ImageReadMode, decode_image

    stored = torch.from_numpy(np.fromfile(path, np.uint8))
    return decode_image(stored, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()


def pillow_image(path: Path) -> ImageFile.ImageFile | None:
    """Open a file with Pillow; return None for a TIFF that Pillow reads wrongly or not at all.

    Raises as Pillow does for other files."""
    try:
        image = open_image(path)
    except UnidentifiedImageError:
        if path.suffix.lower() not in tiff.TIFF_SUFFIXES:
            raise
        return None
    if image.format == "TIFF" and not _is_plain(image):
        image.close()
        return None
    return image


def stored_kind(path: Path) -> tuple[str, int]:
    """Return Pillow's mode of a file and the bits of a channel in it, from its header; the number
    of bands in place of a mode that Pillow lacks. Raises as `read_content`."""
    with reporting_unreadable(path):
        image = pillow_image(path)
        if image is None:
            return tiff.tiff_kind(path)
        with image:
            if found := re.search(r"\b[A-Z]+;(\d+)", f"{image.mode} {_raw_mode(image)}"):
                return image.mode, int(found[1])
            return image.mode, {"1": 1, "I": 32, "F": 32}.get(image.mode, 8)


def may_lack_data(path: Path) -> bool:
    """Return True if `read_content` may find pixels without data in a file: in a TIFF, or by a
    sidecar mask. Raises as it does for an unreadable header."""
    if path.suffix.lower() in tiff.TIFF_SUFFIXES or os.path.isfile(f"{path}.msk"):
        return True
    with reporting_unreadable(path), open_image(path) as image:
        return image.format == "TIFF"


def is_deep_colour(image: Image.Image) -> bool:
    """Return True if a PNG has 16 bits and colour or alpha; Pillow reads 8 bits of these."""
    return image.format == "PNG" and image.mode in ("RGB", "RGBA") and "16" in _raw_mode(image)


def has_one_channel(image: Image.Image) -> bool:
    """Return True if an opened file has one channel (and maybe alpha), and no palette."""
    return image.mode in ("1", "L", "LA", "F") or "LA" in _raw_mode(image) or image.mode[0] == "I"


def has_pages(image: Image.Image) -> bool:
    """Return True if an opened TIFF has further pages, of any kind."""
    return bool(image.tag_v2.next)  # type: ignore[attr-defined]


def refuse_several(image: Image.Image, path: Path) -> None:
    """Raise `UserError` for pages of a TIFF and for animations."""
    count = 1
    if image.format == "TIFF" and has_pages(image):
        count = tiff.count_images(path)
    elif image.format in ANIMATED and getattr(image, "is_animated", False):
        count = image.n_frames  # type: ignore[attr-defined]
    if count > 1:
        raise tiff.several_images_error(path, count)


def _is_plain(image: ImageFile.ImageFile) -> bool:
    """Return True if Pillow reads a TIFF as a viewer shows it: one band, except signed bytes,
    uncompressed planes of more than 8 bits, and compressed big-endian numbers, whose bytes Pillow
    swaps once too often; several bands of 8 bits, unless Pillow reads only the first."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, is_compressed = tags.get(Tag.BitsPerSample, (1,)), tags.get(Tag.Compression, 1) != 1
    in_planes = tags.get(Tag.PlanarConfiguration, 1) == 2
    if max(len(bits), tags.get(Tag.SamplesPerPixel, 1)) > 1:
        reads_first_only = image.mode == "L" or (image.mode == "LA" and in_planes)
        return max(bits) <= 8 and not reads_first_only
    is_signed_byte = bits[0] == 8 and tags.get(Tag.SampleFormat, (UNSIGNED,))[0] == SIGNED
    is_swapped = is_compressed and _raw_mode(image).endswith(("BS", "BF"))
    is_raw_planes = in_planes and not is_compressed and bits[0] > 8
    return not is_raw_planes and not is_signed_byte and not is_swapped


def _grey_bits(image: Image.Image) -> int:
    found = re.fullmatch(r"1.*|L;([24])\D*", _raw_mode(image))
    return int(found[1] or 1) if found else 8


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the pixel layout in an opened file."""
    tiles = getattr(image, "tile", [])
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _is_lossy(image: ImageFile.ImageFile, path: Path) -> bool:
    if image.format == "TIFF":
        return image.tag_v2.get(Tag.Compression, 1) in TIFF_JPEG  # type: ignore[attr-defined]
    if image.format == "WEBP":
        return _webp_codec(path.read_bytes()) == b"VP8 "
    return image.format in ("JPEG", "MPO")


def _webp_codec(content: bytes) -> bytes:
    """Return the name of the first image chunk of a WebP: b"VP8 " (lossy) or b"VP8L" (lossless);
    b"" without one."""
    start = 12
    # A chunk: name, length, content, padding to an even length.
    while (name := content[start : start + 4]) not in (b"VP8 ", b"VP8L", b""):
        length = int.from_bytes(content[start + 4 : start + 8], "little")
        start += 8 + length + length % 2
    return name


def _without_alpha(values: np.ndarray, alpha: list[int]) -> Content:
    """Split `[H, W, N]` into colours and the first of the channels that are alpha."""
    if not alpha:
        return Content(values)
    colours = np.delete(values, alpha, axis=2)
    return Content(colours[..., 0] if colours.shape[2] == 1 else colours, values[..., alpha[0]])


def _oriented(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror stored values as their EXIF orientation says."""
    values = values.swapaxes(0, 1) if orientation in tiff.SIDEWAYS_ORIENTATIONS else values
    values = values[:, ::-1] if orientation in (2, 3, 6, 7) else values
    return np.ascontiguousarray(values[::-1] if orientation in (3, 4, 7, 8) else values)
