"""The data section of a config: files, classes, bands."""

from math import log2
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from util.config.label_map import parse_label_map
from util.config.types import (
    AnyPath,
    Deviation,
    Name,
    Natural,
    Positive,
    Section,
    Shade,
    Share,
    word_or_numbers,
)
from util.errors import counted


class Folders(Section):
    """Folders instead of a split file: images in one folder, masks of the same names in another."""

    images: AnyPath
    """Folder of the images, including its subfolders."""
    second: AnyPath | None = None
    """Folder of the later images for change detection (data.pair). The later image of `a/b.jpg` is
    `a/b` in this folder, with any suffix."""
    masks: AnyPath | None = None
    """Folder of the masks. The mask of `a/b.jpg` is `a/b` in this folder, with any suffix.
    Unlabelled images need none."""
    root: AnyPath | None = None
    """Folder that `images` and `masks` are relative to. Default: data.root."""


class SplitFile(Section):
    """A split file with its own root folder."""

    list: AnyPath
    """Path of the split file."""
    root: AnyPath | None = None
    """Folder that the paths in the split file are relative to. Default: data.root."""


def _form(value: Any) -> str:
    if isinstance(value, SplitFile) or (isinstance(value, dict) and "list" in value):
        return "<file>"
    return "<folders>" if isinstance(value, dict | Folders) else "<path>"


# Paths last: pydantic 2.7 dumps a value as the first alternative that does not fail.
ImageSource = Annotated[
    Annotated[Folders, Tag("<folders>")]
    | Annotated[SplitFile, Tag("<file>")]
    | Annotated[AnyPath, Tag("<path>")],
    Discriminator(_form),
]
"""Path of a split file, `{list: PATH, root: FOLDER}` or `{images: FOLDER, masks: FOLDER}`."""
ImageSources = Annotated[
    Annotated[tuple[ImageSource, ...], Field(min_length=1), Tag("<several>")]
    | Annotated[ImageSource, Tag("<one>")],
    Discriminator(lambda value: "<several>" if isinstance(value, list | tuple) else "<one>"),
]
"""A source, or a list of them."""


Band = Annotated[int, Field(gt=0, le=4096)]
Bands = Annotated[
    Annotated[Literal["rgb", "grey"], Tag("<word>")]
    | Annotated[tuple[Band, ...], Field(min_length=1), Tag("<numbers>")],
    Discriminator(word_or_numbers),
]
"""rgb, grey, or numbers of the bands in a file, from 1."""
Range = tuple[float, float]


def _ranges_form(value: Any) -> str:
    is_nested = isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple)
    return "<several>" if is_nested else "<one>"


Ranges = Annotated[
    Annotated[tuple[Range, ...], Field(min_length=1), Tag("<several>")]
    | Annotated[Range, Tag("<one>")],
    Discriminator(_ranges_form),
]
"""[low, high] of all bands, or one [low, high] for each band."""

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SPLIT_NAMES = ("labeled", "unlabeled", "val", "test")
"""Keys of the images in the data section."""


class PairFolders(Section):
    """Three folders of image pairs; each line of a split file is a file name in all of them."""

    first: AnyPath
    """Folder of the earlier images."""
    second: AnyPath
    """Folder of the later images."""
    masks: AnyPath
    """Folder of the masks."""


Pair = Annotated[
    Annotated[Literal["column"], Tag("<word>")] | Annotated[PairFolders, Tag("<folders>")],
    Discriminator(lambda v: "<folders>" if isinstance(v, dict | PairFolders) else "<word>"),
]
"""`column`, or three folders."""


class Data(Section):
    """Data: names, folders, split files, images, masks."""

    name: str
    """Name of the dataset in reports."""
    root: AnyPath
    """Folder that paths in split files are relative to, unless a split has its own root."""
    classes: Annotated[list[Name], Field(min_length=2, max_length=254)]
    """Class names, in the order of the class indices 0, 1, ..."""
    palette: list[tuple[Shade, Shade, Shade]] | None = None
    """RGB colour of each class in pictures. Default: clearly different colours."""
    background: Name | None = None
    """Class that overlays leave uncoloured. Default: a class named background, void, unchanged,
    rest or other."""
    labeled: ImageSources | None = None
    """Labelled training split: split files or folders. `--labeled-id-path` replaces it."""
    unlabeled: ImageSources | None = None
    """Unlabelled training split. `--unlabeled-id-path` replaces it."""
    val: ImageSources
    """Validation split; it selects the best checkpoint."""
    test: ImageSources | None = None
    """Test split; not used for training or for selecting the checkpoint."""
    reduce_zero_label: bool = False
    """Shift mask values down by one: 0 becomes 255 (ignore), k becomes k - 1. For official ADE20K
    masks."""
    label_map: Annotated[dict[str, int], Field(min_length=1)] | None = None
    """Map from mask values to classes: keys are values or colours ("r,g,b" or [r, g, b]), values
    are class names, class indices or `ignore`. A value that is not listed is an error, unless the
    key `other` gives its class; the key `transparent` gives the class of fully transparent pixels.
    Default: mask values are class indices, 255 is ignored."""
    pair: Pair | None = None
    """Change detection: a sample is two images and a mask of the changes. `column`: a line of a
    split file is `first second mask` (folders then need `second` too); `{first: A, second: B,
    masks: label}`: a line is a file name in each of these folders. Default: single images."""
    bands: Bands = "rgb"
    """Bands of an image that the network sees. `rgb`: three (a grey band is repeated, with a
    warning if all images are grey); `grey`: one; or band numbers of the file, counted from 1."""
    rgb_bands: tuple[Band, Band, Band] | None = None
    """If `bands` are numbers: which three are red, green and blue. Strong views change their hue
    and saturation, and pictures show them. Default: none; strong views then change brightness,
    contrast and sharpness only, and pictures show the first three bands."""
    image_range: Ranges | None = None
    """Pixel values that become 0 and 1: `[low, high]`, or one pair per band. Required for images of
    more than 8 bits. 8-bit images use 0 and 255; they are refused if the range is set, except to a
    whole scale such as `[0, 65535]` or `[0, 1]`."""
    max_megapixels: Positive = 179
    """Larger images and masks are refused, because a small file may unpack to fill the memory.
    `predict.py` predicts larger TIFFs window by window."""
    mean: Annotated[tuple[Share, ...], Field(validate_default=True)] = ()
    """Mean of each band in [0, 1], subtracted from every image. Default: ImageNet's for rgb, 0 for
    other bands."""
    std: Annotated[tuple[Deviation, ...], Field(validate_default=True)] = ()
    """Standard deviation of each band; every image is divided by it. Default: ImageNet's for rgb, 1
    for other bands."""
    geometry: Literal["scale_crop", "rotate_resize"] = "scale_crop"
    """Geometry of the weak view. `scale_crop`: random scale, crop and flip; `rotate_resize`:
    quarter turns with flips, or small angles, then resizing to crop_size by nearest pixels (for
    medical slices)."""
    scale: Range = (0.5, 2.0)
    """Range of the random scale in scale_crop, `[low, high]`; published with 0.8, 1.2 for change
    detection."""
    grey_probability: Share = 0.2
    """Probability that a strong view becomes grey; published with 0 for change detection."""
    workers: Annotated[Natural, Field(le=512)] | None = None
    """Data workers per process. Default: the machine's cores divided by its processes, minus one;
    at least 1, at most 8."""
    cache_mb: Annotated[Natural, Field(le=2**20)] = 512
    """Memory in MiB per process for decoded images, shared by its data workers. Labelled images
    come first, as many as fit; then the unlabelled and the validation split, each only if it fits
    as a whole."""
    check_samples: Natural = 200
    """Images per split that are decoded and checked before training. Independent of this number,
    all files must exist, and in up to 5000 images per split the sizes of image, mask and second
    image are compared."""

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, names: list[str]) -> list[str]:
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"'{twice[0]}' occurs twice")
        return names

    @field_validator("background")
    @classmethod
    def _check_background(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None and name not in info.data.get("classes", [name]):
            raise ValueError(f"'{name}' is not in data.classes")
        return name

    @field_validator("label_map", mode="before")
    @classmethod
    def _parse_label_map(cls, found: Any, info: ValidationInfo) -> Any:
        if not isinstance(found, dict):
            return found
        return parse_label_map(found, info.data.get("classes", []))

    @field_validator("rgb_bands")
    @classmethod
    def _check_rgb_bands(cls, found: Any, info: ValidationInfo) -> Any:
        bands = info.data.get("bands", ())
        if found is not None and (
            isinstance(bands, str) or set(found) - set(bands) or len(set(found)) < 3
        ):
            raise ValueError("expected three of the numbers in data.bands")
        return found

    @field_validator("image_range")
    @classmethod
    def _check_image_range(cls, found: Any, info: ValidationInfo) -> Any:
        if found is None:
            return None
        several = isinstance(found[0], tuple)
        if not all(low < high for low, high in (found if several else [found])):
            raise ValueError("expected [low, high], the lower one first")
        if several and len(found) != count_bands(info.data.get("bands", "rgb")):
            raise ValueError("expected one [low, high], or one for each band")
        return found

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, found: Range) -> Range:
        if not 0 < found[0] <= found[1] <= 100:
            raise ValueError("expected [low, high], 0 < low <= high <= 100")
        return found

    @field_validator("mean", "std")
    @classmethod
    def _one_per_band(cls, found: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        bands = info.data.get("bands", "rgb")
        key = str(info.field_name)
        count = count_bands(bands)
        if not found:
            return IMAGENET[key] if bands == "rgb" else (0.0 if key == "mean" else 1.0,) * count
        if len(found) != count:
            numbers = counted(len(found), "number")
            raise ValueError(f"has {numbers} for {counted(count, 'band')}")
        return found

    @property
    def dates(self) -> int:
        """Images of a sample."""
        return 1 if self.pair is None else 2

    @property
    def num_bands(self) -> int:
        """Bands of an image."""
        return count_bands(self.bands)

    @property
    def takes_8_bits(self) -> bool:
        """True where 8-bit images, divided by 255, are on the scale of the deeper images."""
        return all(low == 0 and log2(high + 1).is_integer() for low, high in self.band_ranges)

    @property
    def band_ranges(self) -> list[Range]:
        """`image_range` of each band; 0 to 255 without one."""
        found: Any = self.image_range or (0.0, 255.0)
        return list(found) if isinstance(found[0], tuple) else [found] * self.num_bands

    @property
    def channels(self) -> int:
        """Channels of a sample: the bands of all its images."""
        return self.dates * self.num_bands

    @property
    def rgb_channels(self) -> tuple[int, int, int] | None:
        """Channels of an image that are red, green and blue; None without colours."""
        if self.bands == "rgb":
            return (0, 1, 2)
        if self.rgb_bands is None or isinstance(self.bands, str):
            return None
        red, green, blue = map(self.bands.index, self.rgb_bands)
        return red, green, blue

    @model_validator(mode="after")
    def _check_combination(self) -> "Data":
        given = self.scale != Data.model_fields["scale"].default
        if given and self.geometry != "scale_crop":
            raise ValueError(
                f"scale has no effect with geometry {self.geometry}. Fix: leave it out"
            )
        if self.label_map is not None and self.reduce_zero_label:
            raise ValueError("label_map and reduce_zero_label exclude each other")
        if self.palette is not None and len(self.palette) != len(self.classes):
            colours = counted(len(self.palette), "colour")
            raise ValueError(f"palette has {colours} for {len(self.classes)} classes")
        return self


def count_bands(bands: Literal["rgb", "grey"] | tuple[int, ...]) -> int:
    return {"rgb": 3, "grey": 1}[bands] if isinstance(bands, str) else len(bands)
