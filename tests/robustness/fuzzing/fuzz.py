"""Search for bad files and settings that are neither accepted nor refused in one line.

Readers also check that what they accept is right.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hypothesis
import numpy as np
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset.validation import check_files, read_splits
from model.build import network_from_config
from model.trained import load_network
from tests.conftest import METHODS, REPOSITORY, Toy
from tests.robustness.fuzzing import odd
from tests.robustness.fuzzing.verdict import LAUGHS, verdict
from util.cli import exit_with_one_line
from util.config.loading import dump_config, load_config
from util.log import log_to_console


class Case(NamedTuple):
    """Damage to one file, and settings for its reader."""

    file: str
    damage: odd.Damage
    settings: list[str] = []
    method: str = "supervised"


class World:
    """Valid files in one folder: a dataset, configs, weights."""

    def __init__(self, folder: Path):
        self.toy = Toy(folder)
        self.config = load_config(self.toy.config)
        self.weights = network_from_config(self.config.model, self.config.data).state_dict()
        for path in REPOSITORY.glob("configs/*.yaml"):
            self.path(path.name).write_bytes(path.read_bytes())
        names = ("toy.yaml", "val.txt", "data/images/l0.jpg", "data/masks/l0.png")
        self.others = [self.path(name).read_bytes() for name in names]
        self.others.append(odd.saved(self.weights, zipped=True))

    def path(self, name: str) -> Path:
        return self.toy.folder / name

    def damages(self, *good: bytes) -> st.SearchStrategy[odd.Damage]:
        """Generate edits of a good file, or other things in its place."""
        other = st.sampled_from([*odd.INSTEAD, *self.others])
        return st.one_of(*map(odd.edited, good), *map(odd.edited, good), other)

    def judge(self, kind: str, case: Case) -> str:
        """Return the verdict on a case; restore the damaged file afterwards."""
        path = self.path(case.file)
        good = path.read_bytes() if path.exists() else None
        odd.damage(path, case.damage)
        try:
            return verdict(lambda: KINDS[kind].read(self, case))
        finally:
            odd.damage(path, "nothing" if good is None else good)


def read_config(world: World, case: Case) -> None:
    """Read a config; an accepted config must be equal after a dump and a load."""
    resolved = world.path("resolved.yaml")
    with exit_with_one_line():
        config = load_config(world.path(case.file), case.settings)
        METHODS[case.method].read_options(config)
        resolved.write_text(dump_config(config), encoding="utf-8")
        assert load_config(resolved) == config


def configs(world: World) -> st.SearchStrategy[Case]:
    trees = {p.stem: yaml.safe_load(p.read_text()) for p in REPOSITORY.glob("configs/*.yaml")}
    trees["toy"] = world.toy.tree
    trees["own"] = world.toy.tree | {"data": world.toy.tree["data"] | OWN}
    text = st.sampled_from(sorted(trees)).flatmap(lambda name: odd.yaml_files(trees[name]))
    laughing = text.map(lambda data: data.replace(b"LAUGHS", LAUGHS.encode()))
    return st.builds(Case, st.just("case.yaml"), laughing, method=st.sampled_from([*METHODS]))


OWN = {
    "labeled": {"images": "images", "masks": "masks", "root": "."},
    "unlabeled": [{"images": "images"}, {"list": "unlabeled.txt", "root": "data"}, "more.txt"],
    "label_map": {"0": "sky", "1": 1, "2": "ignore", "other": "road"},
    "image_range": [0, 4095],
}
"""Part of a data section for a user's own data."""


def overrides(world: World) -> st.SearchStrategy[Case]:
    key = st.one_of(st.sampled_from([*odd.keys(world.config.model_dump())]), odd.texts)
    setting = st.builds("{}={}".format, key, odd.yaml_scalars)
    several = st.lists(st.one_of(setting, setting, odd.texts), min_size=1, max_size=2)
    good = st.just(world.toy.config.read_bytes())
    return st.builds(Case, st.just("toy.yaml"), good, several, st.sampled_from([*METHODS]))


def read_data(world: World, case: Case) -> None:
    """Check split files, images and masks; an accepted mask must hold only classes and 255."""
    log_to_console()  # warnings go to stdout
    with exit_with_one_line():
        data = world.config.data
        check_files(data, *read_splits(data, unlabeled=True))
    if "masks" in case.file:
        with Image.open(world.path(case.file)) as mask:
            found = set(np.unique(np.asarray(mask).astype(int)).tolist())
        assert found <= {*range(world.config.num_classes), 255}


def split_files(world: World) -> st.SearchStrategy[Case]:
    name = st.one_of(
        odd.texts,
        st.sampled_from(["images/l0.jpg", "masks/l0.png", "images/u0.jpg", "images", "None", "/",
                         "images/../images/l1.jpg", "./images/l1.jpg", "images//l1.jpg"]),
    )  # fmt: skip
    line = st.builds(str.join, st.sampled_from([" ", "\t", "\n", ""]), st.lists(name, max_size=3))
    text = st.lists(line, max_size=3).map(lambda x: "\n".join(x).encode(errors="surrogatepass"))

    def damaged(file: str) -> st.SearchStrategy[Case]:
        return st.builds(
            Case, st.just(file), st.one_of(world.damages(world.path(file).read_bytes()), text)
        )

    return st.sampled_from(["labeled.txt", "unlabeled.txt", "val.txt"]).flatmap(damaged)


FORMATS = {"PNG": ("L", "P", "1", "LA", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"),
           "TIFF": ("L", "RGB", "I;16", "F", "CMYK", "LAB"), "BMP": ("L", "P", "RGB"),
           "WEBP": ("RGB", "RGBA"), "GIF": ("L", "P"), "PPM": ("L", "RGB")}  # fmt: skip


def pictures(world: World) -> st.SearchStrategy[Case]:
    kinds = st.sampled_from([(suffix, mode) for suffix in FORMATS for mode in FORMATS[suffix]])
    sizes = st.one_of(st.just((52, 44)), st.tuples(st.integers(1, 60), st.integers(1, 60)))
    whole = st.builds(odd.picture, kinds, sizes)
    file = st.sampled_from(["data/images/u0.jpg", "data/masks/l0.png"])
    return st.builds(Case, file, st.one_of(whole, whole.flatmap(world.damages)))


def read_weights(world: World, case: Case) -> None:
    """Load a network; an accepted zip archive must hold the weights that it held before."""
    with exit_with_one_line():
        network = load_network(world.config.model, world.config.data, world.path(case.file))
    if case.damage[:2] == b"PK":
        own = network.state_dict()
        assert all(torch.equal(own[name], value) for name, value in world.weights.items())


def checkpoints(world: World) -> st.SearchStrategy[Case]:
    weights = world.weights
    layouts = [{"method": {f"model.{k}": v for k, v in weights.items()}}, weights,
               {"model": weights, "epoch": 3, "best": np.float64(1.5)}]  # fmt: skip
    good = [odd.saved(layout, zipped) for layout in layouts for zipped in (True, False)]
    return st.builds(Case, st.just("case.pth"), world.damages(*good))


class Kind(NamedTuple):
    """Kind of bad input."""

    cases: Callable[[World], st.SearchStrategy[Case]]
    read: Callable[[World, Case], None]
    count: int
    """Number of cases in the suite."""


KINDS = {
    "config files": Kind(configs, read_config, 150),
    "--set": Kind(overrides, read_config, 100),
    "split files": Kind(split_files, read_data, 120),
    "images and masks": Kind(pictures, read_data, 120),
    "checkpoints": Kind(checkpoints, read_weights, 50),
}


def explore(kind: str, world: World, factor: float, seed: int) -> Counter[str]:
    """Judge cases drawn from a seed, `factor` times as many as in the suite; count the verdicts.

    Raises `Fault` with the smallest failing case that hypothesis finds.
    """
    tally: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @settings(
        max_examples=max(1, round(factor * KINDS[kind].count)),
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind].cases(world))
    def judge(case: Case) -> None:
        tally[world.judge(kind, case)] += 1

    judge()
    return tally
