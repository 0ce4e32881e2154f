"""The data section of a config: files, classes, bands."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from util.config.label_map import parse_label_map
from util.config.types import (
    IGNORE,
    AnyPath,
    Name,
    Natural,
    Positive,
    PositiveFloat,
    Section,
    Shade,
    Share,
    word_or_numbers,
)


class Folders(Section):
    """Folders instead of a list: all images below one, masks of the same name below another."""

    images: AnyPath
    """Folder of the images, below the root; all images in it, however deep."""
    second: AnyPath | None = None
    """The later image of a/b.jpg is a/b.png here, with any suffix; only where data.pair is set."""
    masks: AnyPath | None = None
    """The mask of a/b.jpg is a/b.png here, with any suffix; unlabelled images need none."""
    root: AnyPath | None = None
    """Folder that `images` and `masks` are relative to; by default data.root."""


class Listed(Section):
    """A list whose paths are relative to a folder of their own."""

    list: AnyPath
    """Path of the list."""
    root: AnyPath | None = None
    """Folder that the paths in the list are relative to; by default data.root."""


def _form(value: Any) -> str:
    if isinstance(value, Listed) or (isinstance(value, dict) and "list" in value):
        return "<listed>"
    return "<folders>" if isinstance(value, dict | Folders) else "<path>"


# Paths last: pydantic 2.7 dumps a value as the first form that does not fail.
Source = Annotated[
    Annotated[Folders, Tag("<folders>")]
    | Annotated[Listed, Tag("<listed>")]
    | Annotated[AnyPath, Tag("<path>")],
    Discriminator(_form),
]
"""The path of a list, `{list: PATH, root: FOLDER}` or `{images: FOLDER, masks: FOLDER}`."""
ImageSources = Annotated[
    Annotated[tuple[Source, ...], Field(min_length=1), Tag("<several>")]
    | Annotated[Source, Tag("<one>")],
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
Ranges = Annotated[
    Annotated[tuple[Range, ...], Field(min_length=1), Tag("<several>")]
    | Annotated[Range, Tag("<one>")],
    Discriminator(lambda v: "<several>" if v and isinstance(v[0], list | tuple) else "<one>"),
]
"""[low, high], of all bands or a list with one of each."""

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class PairFolders(Section):
    """Three folders below the root: a line of a list is a name that stands in each of them."""

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
    """What a dataset is: names, folder, lists, images, masks."""

    name: str
    """Name of the dataset, for reports."""
    root: AnyPath
    """Folder that paths in lists are relative to, where a source names none of its own."""
    classes: Annotated[list[Name], Field(min_length=2, max_length=254)]
    """Class names, in the order of the mask values 0, 1, ..."""
    palette: list[tuple[Shade, Shade, Shade]] | None = None
    """RGB colour of each class, for pictures; when absent, colours that can be told apart."""
    background: Name | None = None
    """Class that overlays leave as photographed; by default one that is called background, void,
    unchanged, rest or other."""
    labeled: ImageSources | None = None
    """Labelled training images: lists or folders; `--labeled-id-path` replaces them."""
    unlabeled: ImageSources | None = None
    """Unlabelled training images; `--unlabeled-id-path` replaces them."""
    val: ImageSources
    """Validation images: they choose the best checkpoint."""
    test: ImageSources | None = None
    """Test images, only for `evaluate.py --split test`."""
    reduce_zero_label: bool = False
    """Mask value 0 becomes 255 (ignore) and k becomes k - 1 (official ADE20K masks)."""
    label_map: Annotated[dict[str, int], Field(min_length=1)] | None = None
    """Mask value, or colour as "r,g,b" or [r, g, b]: class, by name or index, or `ignore`.  What
    the map lacks is an error, or whatever its key `other` says; `transparent` says what fully
    transparent pixels are."""
    pair: Pair | None = None
    """Set it where a sample is two images of one place, and its mask what changed between them.
    column: a line is `first second mask` (folders then name `second` too); `{first: A, second: B,
    masks: label}`: a line is a name in each of these folders."""
    bands: Bands = "rgb"
    """What the network sees of an image: rgb (a grey image's band is repeated to three, which is
    warned of where all are grey), grey, or the numbers of a file's bands, from 1."""
    rgb_bands: tuple[Band, Band, Band] | None = None
    """Where `bands` are numbers: which of them are red, green and blue.  Strong views change the
    hue and saturation of these and turn them grey, and pictures show them; without it strong views
    change brightness, contrast and sharpness alone, and pictures show the first three bands."""
    image_range: Ranges | None = None
    """Values that become 0 and 1, `[low, high]` or a list of one pair for each band; images of more
    than 8 bits need it.  8-bit ones are 0 to 255, whatever it says."""
    max_megapixels: Positive = 179
    """Images and masks with more are refused, as a small file may unpack to fill the memory;
    `predict.py` takes TIFFs of more window by window."""
    mean: Annotated[tuple[float, ...], Field(validate_default=True)] = ()
    """Mean of each band in [0, 1], subtracted from every image; by default ImageNet's for rgb, 0
    for other bands."""
    std: Annotated[tuple[PositiveFloat, ...], Field(validate_default=True)] = ()
    """Standard deviation of each band, by which every image is divided; by default ImageNet's for
    rgb, 1 for other bands."""
    geometry: Literal["scale_crop", "rotate_resize"] = "scale_crop"
    """Weak augmentation.  scale_crop: scale, crop, flip; rotate_resize: quarter turns with flips or
    small angles, then the whole resized to crop_size, all by nearest pixels (medical slices)."""
    scale: Range = (0.5, 2.0)
    """Range of scale_crop's scale, `[low, high]`; published with 0.8, 1.2 for changes."""
    grey_probability: Share = 0.2
    """How often a strong view loses its colours; published with 0 for changes."""
    workers: Annotated[Natural, Field(le=512)] | None = None
    """Data workers per process; by default the cores of this process less one, 8 at most."""
    cache_mb: Annotated[Natural, Field(le=2**20)] = 512
    """Memory, MiB per process, in which its data workers keep decoded images: as many labelled ones
    as fit; of what these leave, the unlabelled list, and then the validation list, each only if it
    fits whole."""
    check_samples: Natural = 200
    """Images per list that are decoded and checked before training.  Whatever it is, all files must
    exist, and the sizes of up to 5000 images per list are compared with those of their masks and
    second images."""

    @field_validator("classes")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"'{twice[0]}' stands twice")
        return names

    @field_validator("background")
    @classmethod
    def _a_class(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None and name not in info.data.get("classes", [name]):
            raise ValueError(f"'{name}' is not in data.classes")
        return name

    @field_validator("label_map", mode="before")
    @classmethod
    def _by_key_and_index(cls, found: Any, info: ValidationInfo) -> Any:
        if not isinstance(found, dict):
            return found
        return parse_label_map(found, info.data.get("classes", []), IGNORE)

    @field_validator("rgb_bands")
    @classmethod
    def _among_the_bands(cls, found: Any, info: ValidationInfo) -> Any:
        bands = info.data.get("bands", ())
        if found is not None and (isinstance(bands, str) or set(found) - set(bands)):
            raise ValueError("expected three of the numbers in data.bands")
        return found

    @field_validator("image_range")
    @classmethod
    def _low_before_high(cls, found: Any, info: ValidationInfo) -> Any:
        ranges = found if found and isinstance(found[0], tuple) else [found] if found else []
        if not all(low < high for low, high in ranges):
            raise ValueError("expected [low, high], the lower one first")
        if ranges is found and len(found) != count_bands(info.data.get("bands", "rgb")):
            raise ValueError("expected one [low, high], or one for each band")
        return found

    @field_validator("scale")
    @classmethod
    def _positive_range(cls, found: Range) -> Range:
        if not 0 < found[0] <= found[1] <= 100:
            raise ValueError("expected [low, high], 0 < low <= high <= 100")
        return found

    @field_validator("mean", "std")
    @classmethod
    def _one_per_band(cls, found: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        bands, key = info.data.get("bands", "rgb"), str(info.field_name)
        count = count_bands(bands)
        if not found:
            return IMAGENET[key] if bands == "rgb" else (0.0 if key == "mean" else 1.0,) * count
        if len(found) != count:
            raise ValueError(f"has {len(found)} numbers for {count} bands")
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
    def channels(self) -> int:
        """Channels of a sample: the bands of all its images."""
        return self.dates * self.num_bands

    @property
    def rgb_channels(self) -> tuple[int, int, int] | None:
        """The channels of an image that are red, green and blue, where there are such."""
        if self.bands == "rgb":
            return (0, 1, 2)
        if self.rgb_bands is None or isinstance(self.bands, str):
            return None
        red, green, blue = map(self.bands.index, self.rgb_bands)
        return red, green, blue

    @model_validator(mode="after")
    def _scale_of_scale_crop(self) -> "Data":
        given = self.scale != Data.model_fields["scale"].default
        if given and self.geometry != "scale_crop":
            raise ValueError(f"scale has no effect with geometry {self.geometry}; leave it out")
        return self

    @model_validator(mode="after")
    def _one_meaning_per_value(self) -> "Data":
        if self.label_map is not None and self.reduce_zero_label:
            raise ValueError("label_map and reduce_zero_label exclude each other")
        return self

    @model_validator(mode="after")
    def _one_colour_per_class(self) -> "Data":
        if self.palette is not None and len(self.palette) != len(self.classes):
            raise ValueError(
                f"palette has {len(self.palette)} colours for {len(self.classes)} classes"
            )
        return self


def count_bands(bands: Literal["rgb", "grey"] | tuple[int, ...]) -> int:
    return {"rgb": 3, "grey": 1}[bands] if isinstance(bands, str) else len(bands)
