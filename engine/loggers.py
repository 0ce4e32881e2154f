"""Where a run's scalars and pictures go beside its own files: TensorBoard's, or Weights & Biases.

Nothing else of the project knows a tracker; another one is a class here and a name in the config.
"""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from util.config.schema import Config
from util.errors import UserError, one_line


class Tracker(Protocol):
    def scalars(self, values: dict[str, float], step: int) -> None: ...

    def pictures(self, pictures: dict[str, Image.Image], step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's folder, below tensorboard/."""

    def __init__(self, config: Config, folder: Path, first_step: int):
        # Events of steps that are run again after an interruption are dropped by TensorBoard.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, pictures: dict[str, Image.Image], step: int) -> None:
        for name, picture in pictures.items():
            self._writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, of the project that the dataset names; files below wandb/.

    It goes on when the run is resumed; of steps that are run again wandb keeps the first values.
    """

    def __init__(self, config: Config, folder: Path, first_step: int):
        wandb = _wandb()
        identity = folder / "wandb.id"
        if not identity.exists():
            identity.write_text(uuid.uuid4().hex[:12])
        try:
            self._run = wandb.init(
                project=config.data.name,
                name=str(folder),
                id=identity.read_text(),
                resume="allow",
                dir=str(folder),
                config=config.model_dump(mode="json"),
            )
        except Exception as error:  # of its own, of the network, of its service
            raise UserError(
                f"log.trackers: wandb cannot start ({one_line(error)}); WANDB_MODE=offline needs "
                "neither network nor login"
            ) from None

    def scalars(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def pictures(self, pictures: dict[str, Image.Image], step: int) -> None:
        wandb = _wandb()
        values = {name: wandb.Image(picture) for name, picture in pictures.items()}
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


KINDS: dict[str, Callable[[Config, Path, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
}


def open_trackers(config: Config, folder: Path, first_step: int) -> list[Tracker]:
    """Those that the config names; raises `UserError` for one that cannot start."""
    return [KINDS[name](config, folder, first_step) for name in config.log.trackers]


def check_trackers(config: Config) -> None:
    """Raise `UserError` for one that is not installed."""
    if "wandb" in config.log.trackers:
        _wandb()


def _wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError(
            "log.trackers: wandb is not installed; pip install -r requirements-extra.txt, or leave "
            "it out"
        ) from None
    return wandb
