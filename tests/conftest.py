"""Shared fixtures: a dataset and a network small enough to train in a second."""

import contextlib
import gc
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests share the cores with their own processes
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave the core to others

import numpy as np
import pytest
import yaml
from PIL import Image

os.fsync = lambda _: None  # tests need no protection from power cuts, and fsync takes milliseconds

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path.relative_to(REPOSITORY)
    for folder in (REPOSITORY, *(init.parent for init in REPOSITORY.glob("*/__init__.py")))
    for path in folder.glob("*.py" if folder == REPOSITORY else "**/*.py")
)
"""Python files of scripts and packages, relative to the repository."""
needs_forks = pytest.mark.xdist_group("forked")
"""Mark of tests that start programs with `tests/forked.py`: they run one by one on one worker."""
LONG = {"test_tour", "test_quickstart"}
"""Files with long tests: they start first, so that no worker waits for them at the end."""
CLASSES = ["sky", "tree", "road"]


def __getattr__(name):
    """Import the methods on first use, so that the process that distributes tests skips PyTorch."""
    if name not in ("METHODS", "every_method"):
        raise AttributeError(name)
    from tests import method_classes

    return getattr(method_classes, name)


def write_sample(root: Path, name: str, size: tuple[int, int] = (52, 44), mask: bool = True) -> str:
    """Write an image of coloured bands and its mask; return its line of a split file."""
    image, labels = encoded_sample(name, size)
    line = {f"images/{name}.jpg": image} | ({f"masks/{name}.png": labels} if mask else {})
    for file, data in line.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)
    return " ".join(line)


@cache
def encoded_sample(name: str, size: tuple[int, int]) -> tuple[bytes, bytes]:
    rng = np.random.default_rng(crc32(name.encode()))
    w, h = size
    label = (np.arange(h) * 3 // h)[:, None].repeat(w, 1).astype(np.uint8)
    image = (80 * label[..., None] + rng.integers(0, 60, (h, w, 3))).astype(np.uint8)
    label[0] = 255
    files = []
    for pixels, kind in ((image, "JPEG"), (label, "PNG")):
        with io.BytesIO() as file:
            Image.fromarray(pixels).save(file, kind)
            files.append(file.getvalue())
    return files[0], files[1]


class Toy:
    """A dataset on disk with its config; `argv` returns a command line for training."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.root = folder / "data"
        self.config = folder / "toy.yaml"
        self.write_list("labeled", [write_sample(self.root, f"l{i}") for i in range(3)])
        self.write_list(
            "unlabeled", [write_sample(self.root, f"u{i}", (60, 40), mask=False) for i in range(5)]
        )
        self.write_list("val", [write_sample(self.root, f"v{i}", (50, 38 + i)) for i in range(3)])
        self.tree = {
            "data": {
                "name": "toy",
                "root": str(self.root),
                "classes": CLASSES,
                "labeled": str(self.path("labeled")),
                "unlabeled": str(self.path("unlabeled")),
                "val": str(self.path("val")),
                "workers": 0,
            },
            "model": {
                "backbone": "test_resnet",
                "channels": 8,
                "aspp_rates": [1, 2, 3],
                "pretrained": "none",
            },
            "crop_size": 33,
            "epochs": 2,
            "batch_size": 2,
            "conf_thresh": 0.3,
            "optimizer": {"lr": 0.01, "lr_multi": 1},
        }
        self.write_config()

    def path(self, kind: str) -> Path:
        return self.folder / f"{kind}.txt"

    def write_list(self, kind: str, lines: list[str]) -> None:
        self.path(kind).write_text("".join(line + "\n" for line in lines))

    def write_config(self) -> None:
        text = yaml.dump(self.tree, Dumper=yaml.CSafeDumper, sort_keys=False)
        self.config.write_text(text)

    def change(self, **keys) -> "Toy":
        self.tree |= keys
        self.write_config()
        return self

    def change_data(self, **keys) -> "Toy":
        """Change keys of the `data` section."""
        self.tree["data"] |= keys
        self.write_config()
        return self

    def use_pairs(self, root: Path) -> None:
        """Use the pairs of tools.make_shapes at `root` instead of the images."""
        self.change_data(
            root=str(root), classes=["unchanged", "changed"],
            label_map={"0": 0, "255": 1, "128": "ignore"},
            pair={"first": "A", "second": "B", "masks": "label"},
            **{kind: str(root / f"{kind}.txt") for kind in ("labeled", "unlabeled", "val")},
        )  # fmt: skip

    def argv(self, save_path: Path | str, *more: str) -> list[str]:
        return ["--config", str(self.config), "--save-path", str(save_path), *more]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch) -> Toy:
    return Toy(tmp_path / "toy")


@pytest.fixture
def three_epochs(toy):
    """Toy dataset with three epochs of five steps."""
    return toy.change(epochs=3, epoch_length=5)


def train_quietly(toy: Toy, save_path: Path) -> None:
    """Train SupOnly for two steps, without output."""
    from engine.command import main
    from supervised import SupOnly
    from tests.own_images import TINY

    argv = ["supervised.py", *toy.argv(save_path, "--set", *TINY)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", argv)
        main(SupOnly)


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory) -> Path:
    """A folder with a toy and the run directory of a training on it; not to be changed."""
    folder = tmp_path_factory.mktemp("shared")
    train_quietly(Toy(folder / "toy"), folder / "run")
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """A folder of generated pairs; not to be changed."""
    from tools.make_shapes.files import generate

    root = tmp_path_factory.mktemp("scenes") / "data"
    generate(root, labeled=3, unlabeled=4, val=2, size=40, pairs=True, progress=False)
    return root


@pytest.fixture(scope="session")
def pair_run(tmp_path_factory, scenes) -> Path:
    """The run directory of a network of pairs; not to be changed."""
    folder = tmp_path_factory.mktemp("pairs")
    toy = Toy(folder / "toy")
    toy.use_pairs(scenes)
    train_quietly(toy, folder / "run")
    return folder / "run"


@pytest.fixture
def trained(shared_run, toy, tmp_path) -> Path:
    """A copy of the shared run directory, whose config names the images of `toy`."""
    run = tmp_path / "run"
    shutil.copytree(shared_run / "run", run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(shared_run / "toy"), str(toy.folder)))
    return run


@pytest.fixture
def variables(toy, tmp_path):
    """Variables of tools/train.sh."""
    return {
        "method": "corrmatch",
        "config": toy.config,
        "labeled_id_path": toy.path("labeled"),
        "unlabeled_id_path": toy.path("unlabeled"),
        "save_path": tmp_path / "a run",
    }


@pytest.fixture
def train(monkeypatch):
    """Run a method's command line in this process."""
    from engine.command import main

    def run(kind, argv: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", [kind.__name__, *argv])
        main(kind)

    return run


@pytest.fixture
def training_error(train, capsys):
    """Run a method's command line, which must fail; return its one error line."""

    def run(kind, argv: list[str]) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            train(kind, argv)
        return Done(end.value.code, *capsys.readouterr()).mistake()

    return run


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    def output(self) -> str:
        """Return the output of a command that must have succeeded."""
        assert self.code == 0, self
        return self.out

    def mistake(self) -> str:
        """Return the one error line of a command that must have failed."""
        assert self.code == 2 and self.err.startswith("error: "), self
        assert self.err.count("\n") == 1, self
        return self.err


def run_python(*arguments: str) -> Done:
    """Run Python in a new process."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def user_error(run):
    """Run the `main` of a script, which must fail; return its one error line."""
    return lambda module, *argv: run(module, *argv).mistake()


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the `main` of a script in this process."""

    def command(module, *argv):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, argv)])
        try:
            code = module.main() or 0
        except SystemExit as end:
            code = end.code or 0
        return Done(code, *capsys.readouterr())

    return command


def json_lines(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def saved(path: Path):
    """Return what a checkpoint holds."""
    import torch

    return torch.load(path, weights_only=True)


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def tree(folder: Path) -> dict[str, str]:
    """Return the text of every file below a folder."""
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def write_programs(folder: Path, programs: dict[str, str]) -> None:
    """Write stubs of programs, by name."""
    for name, text in programs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def touch(root: Path, lines: list[str]) -> None:
    """Create empty files for the paths in the lines of a split file."""
    for file in " ".join(lines).split():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


@pytest.fixture
def splits(run, tmp_path, monkeypatch):
    """Run `python -m tools.splits` in an empty folder."""
    from tools.splits import __main__ as tool

    monkeypatch.chdir(tmp_path)

    def command(*argv):
        done = run(tool, *argv)
        assert done.err.count("\n") == (done.code == 2), done
        return done

    return command


@pytest.fixture(autouse=True)
def settings_of_libraries():
    """Undo settings of the commands that an earlier test ran."""
    import torch

    torch.set_num_threads(1)
    logging.getLogger("semi").propagate = True  # caplog needs it


def pytest_collection():
    gc.disable()  # until collection ends: imports create little garbage


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items):
    """Group tests that would slow each other down: xdist runs a group on one worker.

    "in time": tests that wait for launched processes; "forked": programs of `tests/forked.py`.
    """
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        name = item.path.stem.removeprefix("test_")
        if name in {"interruption", "restarts", "scripts", "slurm"}:
            item.add_marker(pytest.mark.xdist_group("in time"))
        elif name in {"distributed", "equivalence", "machines"}:
            item.add_marker(needs_forks)


def pytest_collection_finish():
    gc.freeze()  # a garbage collection that visits all modules takes a third of a second
    gc.set_threshold(10_000)
    gc.enable()
