"""Trackers: TensorBoard and Weights & Biases, which get a run's scalars and pictures.

All code about trackers is here; a new tracker needs a class here and a name in the config.
"""

import threading
import uuid
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from util.config.schema import Config
from util.errors import UserError, reason
from util.optional import import_optional


class TensorBoard:
    """Event files in the run directory, below tensorboard/."""

    def __init__(self, config: Config, folder: Path, first_step: int):
        # After an interruption, events of repeated steps are dropped, but not the validation of the
        # epoch before, whose step is the number of completed steps.
        purge_step = first_step + 1 if first_step else 0
        threading.excepthook = _report_unless_tensorboards
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step)

    def log_scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def log_pictures(self, pictures: dict[str, Image.Image], step: int) -> None:
        for name, picture in pictures.items():
            self._writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


def _report_unless_tensorboards(error: threading.ExceptHookArgs) -> None:
    """Print a thread's error, unless it is of TensorBoard's writer (a full disk): the next call of
    the writer raises it."""
    if not (error.thread and "tensorboard" in type(error.thread).__module__):
        threading.__excepthook__(error)


class WandB:
    """A run of Weights & Biases, in a project named after the dataset; files below wandb/.

    A resumed run continues it; wandb keeps the first values of repeated steps.
    """

    def __init__(self, config: Config, folder: Path, first_step: int):
        identity = folder / "wandb.id"
        if not identity.exists():
            identity.write_text(uuid.uuid4().hex[:12])
        try:
            self._run = import_optional("wandb", "log.trackers").init(
                project=config.data.name,
                name=str(folder),
                id=identity.read_text(),
                resume="allow",
                dir=str(folder),
                config=config.model_dump(mode="json"),
            )
        except Exception as error:  # raised by wandb, the network or the service
            raise UserError(
                f"log.trackers: wandb cannot start ({reason(error)}). Fix: set "
                "WANDB_MODE=offline, which needs neither network nor login"
            ) from None

    def log_scalars(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def log_pictures(self, pictures: dict[str, Image.Image], step: int) -> None:
        import wandb

        self._run.log({name: wandb.Image(p) for name, p in pictures.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


Tracker = TensorBoard | WandB
TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}


def check_trackers(config: Config) -> None:
    """Raise `UserError` for a tracker that is not installed."""
    if "wandb" in config.log.trackers:
        import_optional("wandb", "log.trackers")
