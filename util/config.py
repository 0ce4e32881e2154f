"""The keys of a config: their types, ranges, defaults and meaning.

Typed and frozen; `util.config_file` reads and validates one before anything else happens.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

IGNORE = 255
"""The mask value of pixels that do not count, everywhere."""

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A frozen group of keys that knows no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Data(Section):
    """What a dataset is: names, folder, lists, masks."""

    name: str
    root: Path
    """Folder that the paths in the lists are relative to."""
    classes: Annotated[list[str], Field(min_length=2, max_length=254)]
    """Class names, in the order of the mask values 0, 1, ..."""
    palette: list[tuple[int, int, int]] | None = None
    """RGB colour of each class, for pictures; a default one when absent."""
    labeled: Path | None = None
    """List of labelled training images; `--labeled-id-path` overrides it."""
    unlabeled: Path | None = None
    """List of unlabelled training images; `--unlabeled-id-path` overrides it."""
    val: Path
    """List of validation images: chooses the best checkpoint."""
    test: Path | None = None
    """List of test images, only for `evaluate.py --split test`."""
    reduce_zero_label: bool = False
    """Mask value 0 becomes 255 (ignore) and k becomes k - 1 (official ADE20K masks)."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Normalisation of RGB in [0, 1]; ImageNet's."""
    workers: Natural | None = None
    """Data workers per process; by default the cores of this process less one, 8 at most."""
    check_samples: Natural = 200
    """Images per list that are decoded and checked before training; headers are always read."""

    @model_validator(mode="after")
    def _one_colour_per_class(self) -> "Data":
        if self.palette is not None and len(self.palette) != len(self.classes):
            raise ValueError(
                f"palette has {len(self.palette)} colours for {len(self.classes)} classes"
            )
        return self


class Model(Section):
    """The network."""

    network: Literal["deeplabv3plus"] = "deeplabv3plus"
    backbone: str = "resnet101s"
    """Any timm network with feature maps; resnet50s and resnet101s are the published ones."""
    output_stride: Literal[8, 16, 32] = 16
    aspp_rates: tuple[Positive, Positive, Positive] = (6, 12, 18)
    multi_grid: bool = False
    """Dilations 2, 2, 4 multiplied into the 3x3 convolutions of a ResNet's last stage."""
    channels: Positive = 256
    """Width of ASPP, decoder and correlation features."""
    pretrained: str = "file"
    """file: pretrained/<backbone>.pth; hub: timm's; none: random; or the path of a .pth file."""


class Criterion(Section):
    """The supervised loss."""

    name: Literal["ce", "ohem"] = "ce"
    thresh: Share = 0.7
    """OHEM keeps pixels whose true class has at most this probability ..."""
    min_kept: Positive = 100_000
    """... or at least this many of the hardest ones **per image**."""


class Optimizer(Section):
    """SGD with poly decay, (1 - i/N)^0.9."""

    lr: Annotated[float, Field(gt=0)] = 0.001
    """Of the backbone."""
    lr_multi: Annotated[float, Field(gt=0)] = 10.0
    """Everything else learns at lr * lr_multi."""
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    power: Annotated[float, Field(gt=0)] = 0.9


class Evaluation(Section):
    """How validation and `evaluate.py` predict."""

    mode: Literal["original", "sliding_window", "center_crop", "resize"] = "original"
    window_border: Literal["cut", "shift"] = "cut"
    """The last sliding window of a row: smaller, or shifted back to end at the border."""
    center_crop_epochs: Natural = 0
    """The first epochs use the cheap center_crop; they never count for the best score."""
    every: Positive = 1
    """Epochs between validations (the last epoch is always validated)."""
    volume_pattern: str | None = None
    """Regular expression whose first group names an image's volume; adds Dice per volume."""

    @field_validator("volume_pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        try:
            if pattern is not None and re.compile(pattern).groups == 0:
                raise ValueError("expected a group, in parentheses, around the volume's name")
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        return pattern


class Config(Section):
    """A whole run."""

    data: Data
    model: Model = Model()
    criterion: Criterion = Criterion()
    optimizer: Optimizer = Optimizer()
    evaluation: Evaluation = Evaluation()
    crop_size: Positive
    epochs: Positive
    epoch_length: Positive | None = None
    """Steps per epoch; by default one pass over the longer list."""
    batch_size: Positive
    """Labelled images per optimizer step over **all** processes, and as many unlabelled ones;
    SupOnly, which has no unlabelled ones, fills their places with labelled images."""
    micro_batch: Positive | None = None
    """Labelled images that one forward of one process sees; the rest is accumulated."""
    conf_thresh: Share = 0.95
    """Confidence a pseudo-label needs."""
    cutmix_partner: Literal["other", "self", "batch"] = "other"
    """CutMix with an independent image, another view of the same one, or the batch rolled by 1."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: Natural = 0
    method: dict[str, Any] = {}
    """Options of the method, documented in its script."""

    @property
    def num_classes(self) -> int:
        return len(self.data.classes)
