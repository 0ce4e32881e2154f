"""Bad configs, split files, images and checkpoints, passed to the code that reads them."""

from typing import NamedTuple

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from PIL import Image

from dataset.validation import check_files, read_splits
from model.trained import load_network
from tests.conftest import METHODS, REPOSITORY
from tests.robustness.fuzzing import yaml_text
from tests.robustness.fuzzing.odd import Damage, damages, texts
from tests.robustness.fuzzing.verdict import LAUGHS, RAN, verdict
from tests.robustness.fuzzing.world import World, picture, saved
from util.cli import exit_with_one_line
from util.config.loading import dump_config, load_config

FORMATS = {"PNG": ("L", "P", "1", "LA", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK"),
           "TIFF": ("L", "RGB", "I;16", "F", "CMYK", "LAB"), "BMP": ("L", "P", "RGB"),
           "WEBP": ("RGB", "RGBA"), "GIF": ("L", "P"), "PPM": ("L", "RGB")}  # fmt: skip


OWN = {
    "labeled": {"images": "images", "masks": "masks", "root": "."},
    "unlabeled": [{"images": "images"}, {"list": "unlabeled.txt", "root": "data"}, "more.txt"],
    "label_map": {"0": "sky", "1": 1, "2": "ignore", "other": "road"},
    "image_range": [0, 4095],
}
"""Part of a data section for a user's own data."""


class ConfigCase(NamedTuple):
    text: bytes
    method: str


def config_cases(world: World) -> st.SearchStrategy[ConfigCase]:
    trees = {p.stem: yaml.safe_load(p.read_text()) for p in REPOSITORY.glob("configs/*.yaml")}
    trees["toy"] = world.toy.tree
    trees["own"] = world.toy.tree | {"data": world.toy.tree["data"] | OWN}
    text = st.sampled_from(sorted(trees)).flatmap(lambda name: yaml_text.configs(trees[name]))
    return st.builds(ConfigCase, text, st.sampled_from(sorted(METHODS)))


def judge_config(world: World, case: ConfigCase) -> str:
    """Judge a config; an accepted config must be equal after a dump and a load."""
    path, resolved = world.toy.folder / "case.yaml", world.toy.folder / "resolved.yaml"
    path.write_bytes(case.text.replace(b"LAUGHS", LAUGHS.encode()))

    def load() -> None:
        with exit_with_one_line():
            config = load_config(path)
            METHODS[case.method].read_options(config)
            resolved.write_text(dump_config(config), encoding="utf-8")
            assert load_config(resolved) == config

    return verdict(load)


def setting_cases(world: World) -> st.SearchStrategy[list[str]]:
    known = list(yaml_text.keys(world.config.model_dump()))
    keys = st.one_of(st.sampled_from(known), texts)
    setting = st.builds("{}={}".format, keys, yaml_text.scalars())
    return st.lists(st.one_of(setting, setting, texts), min_size=1, max_size=2)


def judge_setting(world: World, case: list[str]) -> str:
    def load() -> None:
        with exit_with_one_line():
            load_config(world.toy.config, case)

    return verdict(load)


class ListCase(NamedTuple):
    kind: str
    damage: Damage
    lines: list[str] | None


def list_cases(world: World) -> st.SearchStrategy[ListCase]:
    names = st.one_of(
        texts,
        st.sampled_from(["images/l0.jpg", "masks/l0.png", "images/u0.jpg", "images", "None", "/",
                         "images/../images/l1.jpg", "./images/l1.jpg", "images//l1.jpg"]),
    )  # fmt: skip
    line = st.builds(str.join, st.sampled_from([" ", "\t", "\n", ""]), st.lists(names, max_size=3))
    kinds = st.sampled_from(["labeled", "unlabeled", "val"])
    files = damages("a config", "an image", "a checkpoint")
    return st.one_of(
        st.builds(ListCase, kinds, files, st.none()),
        st.builds(ListCase, kinds, st.just([]), st.lists(line, max_size=3)),
    )


def judge_list(world: World, case: ListCase) -> str:
    data = None if case.lines is None else "\n".join(case.lines).encode(errors="surrogatepass")
    with world.damaged(world.toy.path(case.kind), case.damage, data):
        return verdict(lambda: check(world))


def check(world: World) -> None:
    with exit_with_one_line():
        data = world.config.data
        check_files(data, *read_splits(data, unlabeled=True), warn=lambda _: None)


class PictureCase(NamedTuple):
    file: str
    suffix: str
    mode: str
    size: tuple[int, int]
    damage: Damage


def picture_cases(_: World) -> st.SearchStrategy[PictureCase]:
    kinds = st.sampled_from([(suffix, mode) for suffix in FORMATS for mode in FORMATS[suffix]])
    sizes = st.one_of(st.just((52, 44)), st.tuples(st.integers(1, 60), st.integers(1, 60)))
    files = st.one_of(st.just([]), damages("a config", "a list", "a checkpoint"))
    which = st.sampled_from(["images/u0.jpg", "masks/l0.png"])
    return st.builds(
        lambda a, kind, *rest: PictureCase(a, *kind, *rest), which, kinds, sizes, files
    )


def judge_picture(world: World, case: PictureCase) -> str:
    """Judge an image or a mask; an accepted mask must hold only class indices and 255."""
    path = world.toy.root / case.file
    with world.damaged(path, case.damage, picture(case.mode, case.suffix, case.size)):
        found = verdict(lambda: check(world))
        if found == RAN and case.file.startswith("masks"):
            with Image.open(path) as mask:
                values = set(np.unique(np.asarray(mask).astype(int)).tolist())
            assert values <= {*range(world.config.num_classes), 255}
    return found


class CheckpointCase(NamedTuple):
    layout: str
    zipped: bool
    damage: Damage


def checkpoint_cases(_: World) -> st.SearchStrategy[CheckpointCase]:
    layouts = st.sampled_from(["own", "bare", "published"])
    files = damages("a config", "a list", "an image", "a checkpoint")
    return st.builds(CheckpointCase, layouts, st.booleans(), files)


def judge_checkpoint(world: World, case: CheckpointCase) -> str:
    """Judge a checkpoint; an accepted zip archive with edited bytes must hold the same weights."""
    path = world.toy.folder / "case.pth"
    state = world.states["SupOnly"]["method"]
    weights = {name.removeprefix("model."): value for name, value in state.items()}
    states = {
        "own": {"method": {f"model.{k}": v for k, v in weights.items()}},
        "bare": weights,
        "published": {"model": weights, "epoch": 3, "best": np.float64(1.5)},
    }
    loaded: dict[str, torch.Tensor] = {}

    def load() -> None:
        with exit_with_one_line():
            config = world.config
            loaded.update(load_network(config.model, config.data, path).state_dict())

    with world.damaged(path, case.damage, saved(states[case.layout], case.zipped)):
        found = verdict(load)
    if found == RAN and case.zipped and isinstance(case.damage, list):
        assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    return found
