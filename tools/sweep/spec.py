"""Read a sweep file and expand it into runs."""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import Field, field_validator

from tools.methods import method_of
from util.config.differences import SPLIT_KEYS
from util.config.loading import load_config, parse, read_yaml
from util.config.schema import Config
from util.config.types import AnyPath, Name, Natural, Section
from util.errors import UserError
from util.paths import find_path
from util.starts import STARTS_FILE

Seeds = Annotated[list[Natural], Field(min_length=1)]
Overrides = dict[str, Any]
"""Config values by dotted key."""


class Part(Section):
    """A product of methods, configs, partitions, alternative settings and seeds."""

    methods: Annotated[list[Name], Field(min_length=1)]
    """Names of scripts, without .py."""
    configs: Annotated[list[AnyPath], Field(min_length=1)]
    partitions: list[Name] | None = None
    """Default: the sweep's; without any, the config names the split files."""
    settings: Annotated[dict[Name, Overrides], Field(min_length=1)] | None = None
    """Alternative settings, by the names of their folders."""
    seeds: Seeds | None = None
    """Default: the sweep's."""


class Sweep(Section):
    """Keys of a sweep file."""

    save_path: AnyPath
    """Folder of all runs, which are in config/method/alternative/partition/seed."""
    lists: str | None = None
    """Folder with labeled.txt and unlabeled.txt of a partition: splits/pascal/{partition}."""
    partitions: list[Name] = []
    seeds: Seeds = [0]
    set: Overrides = {}
    """Settings of all runs."""
    runs: Annotated[list[Part], Field(min_length=1)]

    @field_validator("lists")
    @classmethod
    def _check_split_folders(cls, folder: str | None) -> str | None:
        if folder is not None and "{partition}" not in folder:
            raise ValueError("expected a folder with {partition} in its path")
        return folder


class PlannedRun(NamedTuple):
    """One run of a sweep."""

    method: str
    config: Path
    lists: Path | None
    """Folder of labeled.txt and unlabeled.txt; None: the config names the split files."""
    overrides: list[str]
    """The settings as arguments of `--set`."""
    seed: int
    folder: Path

    @property
    def kind(self) -> str:
        """Description shared by runs that differ only in split files and seed."""
        settings = [text for text in self.overrides if text.partition("=")[0] not in SPLIT_KEYS]
        return " ".join([self.method, str(self.config), *settings])

    @property
    def has_started(self) -> bool:
        """True from the first checkpoint on: a full disk may end a start before it."""
        files = ("latest.pth", "previous.pth", "metrics.jsonl")
        is_run = (self.folder / STARTS_FILE).exists()
        return is_run and any((self.folder / name).exists() for name in files)

    @property
    def split_files(self) -> dict[str, Path]:
        """Paths by kind: labeled and, for a method that uses it, unlabeled."""
        if self.lists is None:
            return {}
        kinds = ("labeled", "unlabeled") if method_of(self.method).unlabeled else ("labeled",)
        return {kind: self.lists / f"{kind}.txt" for kind in kinds}

    @property
    def arguments(self) -> list[str]:
        """Arguments of the method's script except config, split files and folder."""
        return ["--seed", str(self.seed), *(["--set", *self.overrides] if self.overrides else [])]

    @property
    def command(self) -> list[str]:
        """Arguments of Python that start the method's script."""
        script = find_path(Path(f"{self.method}.py"))
        lists = [f"--{kind}-id-path={path}" for kind, path in self.split_files.items()]
        return [str(script), "--config", str(self.config), *lists, "--save-path",
                str(self.folder), *self.arguments]  # fmt: skip

    def load(self) -> Config:
        """Load the config; raises `UserError` for one that the method cannot use."""
        lists = {kind: str(path) for kind, path in self.split_files.items()}
        on_top = {"seed": self.seed, **({"data": lists} if lists else {})}
        config = load_config(self.config, self.overrides, on_top)
        method_of(self.method).read_options(config)
        return config


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file; raises `UserError` for a missing file, unknown key or invalid value."""
    sweep: Sweep = parse(Sweep, read_yaml(path), str(path))
    return sweep


def expand(sweep: Sweep, source: Path) -> list[PlannedRun]:
    """Return all runs in the order of the file, seeds innermost.

    Raises `UserError` where two would share a folder, or `lists` is missing.
    """
    runs: dict[Path, PlannedRun] = {}
    for run in (run for part in sweep.runs for run in _runs_of(part, sweep, source)):
        if run.folder in runs:
            raise UserError(
                f"{source}: two runs have the folder {run.folder}. Fix: give their settings names, "
                "or remove a repeated entry"
            )
        runs[run.folder] = run
    return list(runs.values())


def _runs_of(part: Part, sweep: Sweep, source: Path) -> Iterator[PlannedRun]:
    partitions = sweep.partitions if part.partitions is None else part.partitions
    if partitions and sweep.lists is None:
        raise UserError(
            f"{source}: lists: missing. Fix: name the folder of a partition's split files, such as "
            "splits/pascal/{partition}"
        )
    choices = product(
        part.configs,
        part.methods,
        (part.settings or {"": {}}).items(),
        partitions or [""],
        part.seeds or sweep.seeds,
    )
    for config, method, (name, settings), partition, seed in choices:
        folder_of_lists = (sweep.lists or "").replace("{partition}", partition)
        lists = Path(folder_of_lists) if partition else None
        parts = [config.stem, method, name, partition, str(seed)]
        folder = sweep.save_path.joinpath(*filter(None, parts))
        chosen = [*sweep.set.items(), *settings.items()]
        overrides = [f"{key}={_as_yaml(value)}" for key, value in chosen]
        yield PlannedRun(method, config, lists, overrides, seed, folder)


def _as_yaml(value: Any) -> str:
    """Write a value as YAML in one line; a text without quotes where YAML reads it as a text."""
    if isinstance(value, str):
        with suppress(yaml.YAMLError):
            if yaml.safe_load(value) == value:
                return value
    return json.dumps(value, ensure_ascii=False, default=str)  # YAML's dates
