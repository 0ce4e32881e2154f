"""Configuration: YAML -> one typed, frozen object, validated once, before anything else happens.

`base: other.yaml` (relative to the file that says it) is loaded first and overridden section by
section; `--set key.subkey=value` overrides both.  This page is also the reference of all keys.
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from util.errors import UserError

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


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)  # a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"{path}{where}: not valid YAML ({problem})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected keys and values, found {type(tree).__name__}")
    return tree


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both_sections = {k for k in over if isinstance(over[k], dict) and isinstance(base.get(k), dict)}
    return base | {k: _merge(base[k], v) if k in both_sections else v for k, v in over.items()}


def _load_tree(path: Path, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in children:
        raise UserError(f"{path}: 'base' leads back to this file")
    tree = _read_yaml(path)
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{path}: 'base' must be the path of a YAML file, found {base!r}")
    if not (path.parent / base).is_file():
        raise UserError(f"{path}: base: {path.parent / base}: no such config file")
    return _merge(_load_tree(path.parent / base, (*children, path.resolve())), tree)


def _override(assignment: str) -> dict[str, Any]:
    """'a.b=1' -> {'a': {'b': 1}}."""
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {assignment}: expected key=value")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"--set {assignment}: '{text}' is not a YAML value") from None
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return value


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys of the section in which the last part of `location` stands."""
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)


def validate(model: type[Section], tree: dict[str, Any], source: str, prefix: str = "") -> Any:
    """`tree` as a `model`; the first mistake becomes a `UserError` that names source and key."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
    location = first["loc"]
    key = prefix + ".".join(map(str, location))
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, location)
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"
        raise UserError(f"{source}: unknown key '{key}'; {hint}")
    if first["type"] == "missing":
        raise UserError(f"{source}: key '{key}' is missing")
    found = f", found {first['input']!r}" if not isinstance(first["input"], dict) else ""
    raise UserError(f"{source}: {key or 'config'}: {first['msg']}{found}")


def load_config(
    path: str | Path, overrides: Sequence[str] = (), tree_on_top: dict[str, Any] | None = None
) -> Config:
    """The validated config of a YAML file, its bases, `key=value` overrides and a last tree.

    Raises `UserError` for a missing file, bad YAML, an unknown key or a value out of range.
    """
    tree = _load_tree(Path(path))
    for assignment in overrides:
        tree = _merge(tree, _override(assignment))
    tree = _merge(tree, tree_on_top or {})
    source = f"{path} with --set {' '.join(overrides)}" if overrides else str(path)
    config: Config = validate(Config, tree, source)
    return config


# What may change while a run is interrupted: where its files lie and how fast they are read.
_MOVABLE = {"data.root", "data.labeled", "data.unlabeled", "data.val", "data.test"}
_MOVABLE |= {"data.workers", "data.check_samples"}


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """'key (old -> new)' for each key that would make a resumed run another run."""
    found = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b and prefix + key not in _MOVABLE:
            found.append(f"{prefix}{key} ({a} -> {b})")
    return found


def dump_config(config: Config) -> str:
    """The resolved config as YAML; loading it again gives an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
