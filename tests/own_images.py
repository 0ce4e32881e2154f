"""Images and masks in folders and file formats as users have them."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

COLOURS = np.array([[0, 0, 0], [128, 64, 0], [0, 128, 128]], np.uint8)
NAMES = ["a", "b c", "Ünten"]
TINY = ["model.backbone=test_resnet", "model.channels=8", "model.aspp_rates=[1,2,3]",
        "model.pretrained=none", "crop_size=33", "epochs=1", "epoch_length=2", "batch_size=2",
        "conf_thresh=0.3", "data.workers=0"]  # fmt: skip


def truth(number, classes=3, size=(52, 44)):
    """Return a mask of horizontal class bands in an order set by `number`, with a row of 255."""
    w, h = size
    bands = ((np.arange(h) * classes // h + number) % classes)[:, None].repeat(w, 1)
    bands[0] = 255
    return bands.astype(np.uint8)


def save_image(image, path, **options):
    """Save an image or an array, in folders that are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)


def exif_with_orientation(orientation):
    """Return the EXIF data of an image with this orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def with_palette(values, colours):
    image = Image.fromarray(values)
    image.putpalette(colours.astype(np.uint8).tobytes())
    return image


def in_colour(mask):
    table = np.full((256, 3), (224, 224, 192), np.uint8)
    table[:3] = COLOURS
    return table[mask]


def own_palette(mask):
    """Return a palette image whose indices are shuffled differently in each image."""
    order = np.random.default_rng(int(mask[1, 0])).permutation(256).astype(np.uint8)
    table = np.zeros((256, 3), np.uint8)
    table[order[:3]], table[order[255]] = COLOURS, (224, 224, 192)
    return with_palette(order[mask], table)


FULL = np.full((256, 3), 200)
FULL[:3] = COLOURS
# Ways to store a mask of class indices: suffix, function that makes the image.
FORMS = {
    "index": (".png", Image.fromarray),
    "rgb": (".bmp", lambda mask: Image.fromarray(in_colour(mask))),
    "palette": (".png", lambda mask: with_palette(mask, FULL)),
    "own palette": (".gif", own_palette),
    "16 bits": (".tif", lambda m: Image.fromarray(np.where(m == 255, 255, 300 * m.astype("<u2")))),
}


def write_images(folder, count=6, deep=False, size=(52, 44)):
    """Write images to nested folders with spaces in their names; return paths without suffix."""
    stems = [f"{'city one' if i % 2 else 'b/c'}/photo {i}" for i in range(count)]
    for i, stem in enumerate(stems):
        path = (folder / stem).with_suffix(".png" if deep else ".jpg")
        grey = truth(i, size=size) % 255 * 80 + np.random.default_rng(i).integers(0, 60, size[::-1])
        image = grey * 16 if deep else np.repeat(grey[..., None], 3, 2)
        save_image(image.astype(np.uint16 if deep else np.uint8), path)
    return stems


def write_masks(folder, stems, form, classes=3, suffix=""):
    ending, picture = FORMS[form] if isinstance(form, str) else form
    for i, stem in enumerate(stems):
        save_image(picture(truth(i, classes)), folder / f"{stem}{suffix}{ending}")


def georeference(image, mask, shift):
    """Replace an image and its mask by GeoTIFFs whose grids are `shift` pixels apart."""
    for path, x in ((image, 400000.0), (mask, 400000 + 0.5 * shift)):
        place = {33550: (0.5, 0.5, 0.0), 33922: (0.0, 0.0, 0.0, x, 5800000.0, 0.0)}
        crs = {34735: (1, 1, 0, 1, 3072, 0, 1, 32633)}
        Image.open(path).save(path.with_suffix(".tif"), tiffinfo=place | crs)
        path.unlink()


def write_raster(path, bands, *, mask=None, internal=True, **how):
    """Write bands `[N, H, W]` as a GeoTIFF, with a nodata mask in or beside it."""
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    form = {"count": count, "height": height, "width": width, "dtype": bands.dtype, **how}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        with rasterio.open(path, "w", driver="GTiff", **form) as file:
            file.write(bands)
            if mask is not None:
                file.write_mask(mask)
