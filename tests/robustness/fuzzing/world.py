"""Valid files around the bad input: a small dataset, its config, checkpoints."""

import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from corrmatch import CorrMatch
from engine.command import main
from model.checkpoint import load
from supervised import SupOnly
from tests.conftest import REPOSITORY, Toy
from tests.robustness.fuzzing.odd import Damage, damage, remove
from tests.robustness.fuzzing.verdict import RAN, called, verdict
from util.config.loading import load_config

MODELS = {"SupOnly": SupOnly, "CorrMatch": CorrMatch}


class World:
    """Valid files in one folder; damaged files are restored."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.toy = Toy(folder / "toy").change(epochs=1, epoch_length=1)
        self.config = load_config(self.toy.config)
        for path in REPOSITORY.glob("configs/*.yaml"):
            (self.toy.folder / path.name).write_bytes(path.read_bytes())
        self._count = itertools.count()
        self.checkpoints = {name: self._train(kind) for name, kind in MODELS.items()}
        self.states = {name: load(path) for name, path in self.checkpoints.items()}
        self.trained = self.toy.folder / "trained.pth"
        self.trained.write_bytes(self.checkpoints["SupOnly"].read_bytes())
        weights = self.states["SupOnly"]["method"]
        backbone = {k.removeprefix("model.backbone."): v for k, v in weights.items()}
        torch.save(backbone, self.toy.folder / "weights.pth")
        self.files = {
            "a config": self.toy.config.read_bytes(),
            "a list": self.toy.path("labeled").read_bytes(),
            "an image": (self.toy.root / "images/l0.jpg").read_bytes(),
            "a mask": (self.toy.root / "masks/l0.png").read_bytes(),
            "a checkpoint": self.trained.read_bytes(),
        }

    def fresh(self) -> Path:
        return self.folder / "cases" / str(next(self._count))

    def _train(self, kind: Any) -> Path:
        folder = self.fresh()
        assert verdict(lambda: called(lambda: main(kind), *self.toy.argv(folder))) == RAN
        return folder / "latest.pth"

    @contextmanager
    def damaged(self, path: Path, by: Damage, data: bytes | None = None) -> Iterator[None]:
        """Damage a file, after writing `data` to it if given; restore it afterwards."""
        original = path.read_bytes() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        damage(path, data if data is not None else original or b"", by, self.files)
        try:
            yield
        finally:
            remove(path)
            if original is not None:
                path.write_bytes(original)


def picture(mode: str, suffix: str, size: tuple[int, int]) -> bytes:
    """Return an encoded image; as a mask it has classes 0, 1 and 2."""
    with io.BytesIO() as file:
        image = Image.linear_gradient("L").resize(size).point(lambda value: value // 86)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16))
        image.convert(mode).save(file, suffix)
        return file.getvalue()


def saved(state: Any, zipped: bool) -> bytes:
    with io.BytesIO() as file:
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()
