"""Bad input for whole commands: training, resuming, evaluation, prediction."""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

from engine.command import main
from tests.robustness.fuzzing.odd import (
    Change,
    Damage,
    Place,
    changes,
    damages,
    one_of_many,
    places,
    plain,
    rebuilt,
    values,
)
from tests.robustness.fuzzing.verdict import called, run_module, verdict
from tests.robustness.fuzzing.world import MODELS, World, saved

LIKELY: dict[str, list[Any]] = {
    "model.network": ["dpt"],
    "model.backbone": ["test_vit", "test_vit4", "test_convnext", "test_efficientnet", "test_nfnet",
                       "test_coatnet", "test_resnet.r160_in1k", "test_resnet.x"],
    "model.output_stride": [8, 32],
    "model.multi_grid": ["true"],
    "model.channels": [1],
    "model.aspp_rates": ["[1, 1, 1]", "[99, 500, 1000]"],
    "model.lock_backbone": ["true"],
    "model.checkpoint_activations": ["true"],
    "criterion": ["{name: ohem}", "{name: ohem, min_kept: 1}", "{name: ohem, min_kept: 99999999}"],
    "optimizer": ["{lr: 1.0e+30}", "{name: adamw, lr: 1.0e-300}", "{weight_decay: 1.0e+308}"],
    "evaluation": ["{mode: sliding_window}", "{mode: resize}", "{mode: center_crop}",
                   "{mode: sliding_window, window_border: shift}", "{volume_pattern: '(l)|v'}"],
    "evaluation.every": [3],
    "evaluation.window_batch": [1, 10**9],
    "crop_size": [34, 64, 80, 112],
    "batch_size": [1, 3, 4],
    "epoch_length": [3, 1000],
    "epochs": [3, 10**9],
    "micro_batch": [1, 2],
    "precision": ["bfloat16", "float16"],
    "cutmix_partner": ["self", "batch", "flip"],
    "seed": [7],
    "save_every": [1],
    "channels_last": ["true"],
    "model.patch_size": [8, 257],
    "nonfinite_limit": [0],
    "data.workers": [0],
    "data.check_samples": [0, 1, 10**9],
    "data.reduce_zero_label": ["true"],
    "data.label_map": ["{0: sky, 1: tree, other: road}", "{2: 2, other: ignore}"],
    "data.image_range": ["[0, 1]"],
    "data.labeled": ["{images: images, masks: masks}"],
    "data.mean": ["[1.0e+308, 0, -1.0e+30]"],
    "data.std": ["[1.0e-30, 1, 1]"],
    "data.name": ["''"],
    "data.classes": ["[a, b]", "[a, b, c, d]", "['%s', '{}', '$']"],
    "data.palette": ["[[0, 0, 0], [1, 1, 1], [255, 0, 3]]"],
    "conf_thresh": [0, 1],
    "method.thresh_init": ["null", 0, 1],
    "method.regions": [1, 10**6],
    "method.references": [1, 10**6],
    "method.list_max_len": [10**9],
}  # fmt: skip
"""Settings that most methods accept."""

TENSORS = [
    torch.zeros(()), torch.zeros(0), torch.ones(3), torch.full((3,), torch.nan), 1j * torch.ones(3),
    torch.ones(3, dtype=torch.int64), torch.ones(2, dtype=torch.bool), torch.eye(3).to_sparse(),
    torch.empty(3, device="meta"), torch.ones(1).expand(2**40), torch.tensor(np.float64(1)),
]  # fmt: skip
NEW = st.one_of(values, st.sampled_from(TENSORS))


class RunCase(NamedTuple):
    command: str
    settings: list[str]
    file: str
    damage: Damage


def run_cases(commands: list[str], world: World) -> st.SearchStrategy[RunCase]:
    """Generate commands with likely settings, with one odd setting, or with a damaged file."""
    likely = st.sampled_from([f"{key}={value}" for key in LIKELY for value in LIKELY[key]])
    odd = st.builds("{}={}".format, st.sampled_from(sorted(LIKELY)), plain)
    files = ["labeled.txt", "unlabeled.txt", "val.txt", "data/images/l1.jpg", "data/images/u1.jpg",
             "data/masks/l1.png", "data/masks/v1.png", "toy.yaml", "trained.pth",
             "weights.pth"]  # fmt: skip
    others = damages("a config", "a list", "an image", "a mask", "a checkpoint")
    command, config, none = map(st.sampled_from, (commands, ["toy.yaml"], [[]]))
    return st.one_of(
        st.builds(RunCase, command, st.lists(likely, max_size=3), config, none),
        st.builds(RunCase, command, odd.map(lambda setting: [setting]), config, none),
        st.builds(RunCase, command, st.lists(likely, max_size=1), st.sampled_from(files), others),
    )


@contextmanager
def _input(world: World, case: RunCase) -> Iterator[list[str]]:
    """Yield the command line of a case while its bad input is in place."""
    toy, out = world.toy, world.fresh()
    train = toy.argv(out, "--dry-run")
    if case.file == "weights.pth":
        train.append(f"--set=model.pretrained={toy.folder / case.file}")
    use = ["--config", str(toy.config), "--checkpoint", str(world.trained)]
    argv = {
        "evaluate": [*use, "--json", str(out)],
        "predict": [*use, "--images", str(toy.root / "images"), "--save-path", str(out)],
        "tools.check_data": ["--config", str(toy.config), "--json", f"{out}.json"],
    }.get(case.command, train)
    with world.damaged(toy.folder / case.file, case.damage):
        yield [*argv, *(f"--set={setting}" for setting in case.settings)]


def judge_run(world: World, case: RunCase) -> str:
    """Judge a command; trainings get --dry-run, which checks and builds everything a run needs."""

    def command() -> None:
        try:
            run_module(case.command)
        except SystemExit as end:
            is_report = end.code == 1 and case.command == "tools.check_data"
            sys.exit(0 if is_report else end.code)  # it found problems of the data

    with _input(world, case) as argv:
        return verdict(lambda: called(command, *argv))


class StateCase(NamedTuple):
    method: str
    changes: list[Change]
    instead: Any
    """Replacement for the whole state, unless None."""


def state_cases(world: World) -> st.SearchStrategy[StateCase]:
    """Generate faulty checkpoint states; the few entries that are not weights change often, too."""
    return st.sampled_from(sorted(world.checkpoints)).flatmap(
        lambda name: st.one_of(
            st.builds(StateCase, st.just(name), _changes(world.states[name]), st.none()),
            st.builds(StateCase, st.just(name), st.just([]), NEW),
        )
    )


def _changes(state: dict[str, Any]) -> st.SearchStrategy[list[Change]]:
    many = ("method", "optimizer")
    few: list[Place] = [place for place in places(state) if place[0] not in many]
    where = [few, few, places(state, 1)]
    where += [[(key, *place) for place in places(state[key])] for key in many]
    return changes(st.one_of(*map(one_of_many, where)), NEW)


def judge_state(world: World, case: StateCase) -> str:
    """Judge a resumed run; the checkpoint must not change."""
    path = world.toy.folder / "case.pth"
    state = rebuilt(world.states[case.method], case.changes)
    path.write_bytes(saved(state if case.instead is None else case.instead, zipped=True))
    before = path.read_bytes()
    argv = world.toy.argv(world.fresh(), "--resume", str(path))
    found = verdict(lambda: called(functools.partial(main, MODELS[case.method]), *argv))
    assert path.read_bytes() == before
    return found
