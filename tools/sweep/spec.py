"""Sweeps: which runs there shall be, from a YAML file; configs/sweeps/ has those of the tables."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import Field, field_validator

from tools.methods import method_of
from util.config.loading import load_config, parse, read_yaml
from util.config.schema import Config
from util.config.types import AnyPath, Name, Natural, Section
from util.errors import UserError
from util.paths import find

Names = Annotated[list[Name], Field(min_length=1)]
Settings = dict[str, Any]
"""Values of the config by dotted key, as `--set` takes them."""


class Part(Section):
    """Every method with every config, partition, setting and seed."""

    methods: Names
    """Names of scripts, without .py."""
    configs: Annotated[list[AnyPath], Field(min_length=1)]
    partitions: list[Name] | None = None
    """By default those of the sweep; without any, the lists are the config's."""
    settings: Annotated[dict[Name, Settings], Field(min_length=1)] | None = None
    """Alternatives, by the names of their folders."""
    seeds: Annotated[list[Natural], Field(min_length=1)] | None = None
    """By default those of the sweep."""


class Sweep(Section):
    """A sweep's file."""

    save_path: AnyPath
    """Folder of all runs: below it config/method/setting/partition/seed."""
    lists: str | None = None
    """Folder of a partition's labeled.txt and unlabeled.txt, such as splits/pascal/{partition}."""
    partitions: list[Name] = []
    seeds: Annotated[list[Natural], Field(min_length=1)] = [0]
    set: Settings = {}
    """Of all runs."""
    runs: Annotated[list[Part], Field(min_length=1)]

    @field_validator("lists")
    @classmethod
    def _has_a_place(cls, found: str | None) -> str | None:
        if found is not None and "{partition}" not in found:
            raise ValueError("expected a folder with {partition} in its path")
        return found


class Planned(NamedTuple):
    """One run of a sweep."""

    method: str
    config: Path
    lists: Path | None
    """Folder of its labeled.txt and unlabeled.txt; None: the config names them."""
    settings: Settings
    seed: int
    folder: Path

    @property
    def kind(self) -> str:
        """What it shares with runs that differ in lists and seed alone."""
        settings = " ".join(self.overrides)
        return f"{self.method} {self.config} {settings}".rstrip()

    @property
    def list_files(self) -> dict[str, Path]:
        """By labeled and, for a method that has use for them, unlabeled."""
        if self.lists is None:
            return {}
        kinds = ("labeled", "unlabeled") if method_of(self.method).unlabeled else ("labeled",)
        return {kind: self.lists / f"{kind}.txt" for kind in kinds}

    @property
    def overrides(self) -> list[str]:
        """The settings as `--set` takes them."""
        return [f"{key}={_as_yaml(value)}" for key, value in self.settings.items()]

    @property
    def arguments(self) -> list[str]:
        """Those of the method's script, but for config, lists and folder."""
        more = ["--set", *self.overrides] if self.settings else []
        return ["--seed", str(self.seed), *more]

    @property
    def command(self) -> list[str]:
        """Arguments of Python that start the method's script, from the working directory."""
        lists = [f"--{kind}-id-path={path}" for kind, path in self.list_files.items()]
        return [str(find(Path(f"{self.method}.py"))), "--config", str(self.config), *lists,
                "--save-path", str(self.folder), *self.arguments]  # fmt: skip

    def load(self) -> Config:
        """Its config; raises `UserError` for one that the method cannot use."""
        paths = {kind: str(path) for kind, path in self.list_files.items()}
        on_top: dict[str, Any] = {"seed": self.seed} | ({"data": paths} if paths else {})
        config = load_config(self.config, self.overrides, on_top)
        method_of(self.method).read_options(config)
        return config


def read_sweep(path: Path) -> Sweep:
    """Raises `UserError` for a missing file, an unknown key, a value out of range."""
    sweep: Sweep = parse(Sweep, read_yaml(path), str(path))
    return sweep


def expand(sweep: Sweep, source: Path) -> list[Planned]:
    """All runs, in the order of the file, seeds innermost; raises `UserError` where two would share
    a folder, or a partition has no lists."""
    folders: dict[Path, Planned] = {}
    for part in sweep.runs:
        for planned in _runs_of(part, sweep, source):
            if planned.folder in folders:
                raise UserError(f"{source}: two runs in {planned.folder}; name their settings")
            folders[planned.folder] = planned
    return list(folders.values())


def _runs_of(part: Part, sweep: Sweep, source: Path) -> Iterator[Planned]:
    partitions = sweep.partitions if part.partitions is None else part.partitions
    if partitions and sweep.lists is None:
        raise UserError(f"{source}: lists: missing, where the lists of partitions are")
    choices = product(
        part.configs,
        part.methods,
        (part.settings or {"": {}}).items(),
        partitions or [""],
        part.seeds or sweep.seeds,
    )
    for config, method, (name, settings), partition, seed in choices:
        lists = Path((sweep.lists or "").format(partition=partition)) if partition else None
        places = [config.stem, method, name, partition, str(seed)]
        folder = sweep.save_path.joinpath(*filter(None, places))
        yield Planned(method, config, lists, sweep.set | settings, seed, folder)


def _as_yaml(value: Any) -> str:
    """A value as YAML in one line, plain where it can be."""
    plain = isinstance(value, str) and yaml.safe_load(value) == value
    return value if plain else json.dumps(value)
