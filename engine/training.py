"""A run's training: what it is made of, one step of it, and how far it got."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dataset.batch import Batch, RawBatch
from dataset.cache import memory
from dataset.loaders import (
    Process,
    data_workers,
    evaluation_loader,
    images_per_forward,
    set_epoch_length,
    split_batch,
    to_device,
    training_loader,
)
from dataset.split_files import identity
from dataset.validation import check_files, read_lists
from dataset.views import make_views
from engine.checkpointing import RunState, check_run
from engine.class_weights import with_class_weights
from engine.method import Method
from engine.nonfinite import Statistics
from engine.optimizer import build_optimizer, load_optimizer, set_poly_lr, step_if_finite
from engine.progress import Means
from engine.run_dir import RunFolder, state_to_resume
from inference.evaluation import Scores, evaluate, volume_indices
from metrics.calibration import PseudoLabelScores
from model.acceleration import compile_parts, require_compiler, use_layout
from model.build import network_of
from model.checkpoint import load_weights, nonfinite_tensors
from model.pretrained import load_backbone
from util import distributed
from util.config.loading import SCORED_BY, differences, with_defaults
from util.config.schema import Config
from util.errors import UserError, first_of
from util.log import code_version, logger
from util.normalize import mean_and_std
from util.precision import LossScale, autocast, precision_on
from util.seed import be_deterministic, init_seed, seed_step


@dataclass
class Training:
    """What `prepare` builds and `fit` runs: the parts, and how far it got."""

    config: Config
    device: torch.device
    folder: RunFolder
    method: Method
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: LossScale
    train: DataLoader
    val: DataLoader
    volumes: list[int]
    images: dict[str, Any] = field(default_factory=dict)
    """Identities of the image lists, by labeled, unlabeled and val."""
    epoch: int = 0
    """Epochs that are done, validation included."""
    done: int = 0
    """Steps of the present epoch that are done."""
    means: Means = field(default_factory=Means)
    """Means of the scalars of these steps."""
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    """Best score and its epoch, by the name of the network."""
    history: list[dict[str, Any]] = field(default_factory=list)
    nonfinite: int = 0
    """Steps in a row, up to the last one that was judged, with a loss or gradient not finite."""
    source: Path | None = None
    """The checkpoint it was resumed from."""

    @property
    def steps_done(self) -> int:
        """Of the whole run."""
        return self.epoch * len(self.train) + self.done

    def __post_init__(self) -> None:
        self.mean, self.std = mean_and_std(self.config, self.device)
        self._statistics = Statistics(self.method)
        self._saved = (0, time.monotonic())

    def state(self) -> dict[str, Any]:
        return {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state(),
            "epoch": self.epoch,
            "done": self.done,
            "means": self.means.state(),
            "best": self.best,
            "history": self.history,
            "name": type(self.method).__name__,
            "config": self.config.model_dump(mode="json"),
            "images": self.images,
            "epoch_length": len(self.train),
            "nonfinite": self.nonfinite,
        }

    def load_state(self, state: Any, source: Path, force: bool) -> None:
        """Continue where `state` ended; raises `UserError` for the state of another run, and for
        another config or other image lists unless by `force`."""
        own = self.state()
        run = check_run(state, own["name"], source)
        load_weights(self.method, state["method"], source)
        changed = differences(with_defaults(state["config"]), own["config"])
        changed |= run.changed_images(self.images)
        loses_best = bool(run.best) and any(key.startswith(SCORED_BY) for key in changed)
        if changed and not force:
            loss = ", which discards the best scores (not comparable) and best.pth" * loses_best
            raise UserError(
                f"{source}: the run was started with other settings or image lists: "
                f"{'; '.join(changed.values())}. Fix: resume with the same, choose another "
                f"--save-path, or pass --force{loss}"
            )
        load_optimizer(self.optimizer, state["optimizer"], source)
        if own["config"]["precision"] == state["config"].get("precision"):
            self.scaler.load_state(state["scaler"])
        self.epoch, self.done = state["epoch"], state["done"]
        self.means = Means(state["means"], self.device)
        if not loses_best:
            self.best = {name: best.model_dump() for name, best in run.best.items()}
        self.history = state["history"]
        self.nonfinite = run.nonfinite
        self.warn_of_changes(run, list(changed.values()), loses_best, source)
        self.keep_epoch_length(run, source)
        if self.steps_done:  # as the next checkpoint may be due before the next step
            self.set_lr(self.steps_done - 1)
        self.source, self._saved = source, (self.done, time.monotonic())

    def warn_of_changes(
        self, run: RunState, changed: list[str], loses_best: bool, source: Path
    ) -> None:
        """Log what of the run differs from when it was started, and what follows."""
        if changed:
            logger.warning("%s: continues with changes: %s", source, "; ".join(changed))
        if loses_best:
            names = ", ".join(self.folder.best(name).name for name in run.best)
            logger.warning(
                "%s: best scores are discarded, as they are not comparable with scores from now "
                "on; the next validation replaces %s", source, names,
            )  # fmt: skip
        if run.images is None:
            logger.info("%s: records no image lists (an older version); not compared", source)

    def keep_epoch_length(self, run: RunState, source: Path) -> None:
        """Keep the run's number of steps per epoch, so that steps and learning rates continue
        where they were, unless the config gives a number itself."""
        now, length = len(self.train), run.epoch_length
        if self.config.epoch_length is None and length not in (None, now):
            logger.warning(
                "%s: epochs keep their %d steps; one pass over the longer list is %d steps now",
                source, length, now,
            )  # fmt: skip
            set_epoch_length(self.train, length)

    def save(self) -> None:
        """Write a checkpoint; with several processes, all of them take part.

        Raises `UserError`, and leaves the last checkpoint, where weights are not finite.
        """
        self.check_weights()
        state = self.state()
        distributed.on_main(lambda: self.folder.save(state, self.history))
        self._saved = (self.done, time.monotonic())

    def check_weights(self) -> None:
        """Raise `UserError` where weights or momenta are not finite."""
        parts = {"method": self.method.state_dict(), "optimizer": self.optimizer.state_dict()}

        def check() -> None:
            if found := nonfinite_tensors(parts):
                raise UserError(
                    f"{self.folder.latest}: not written, as {first_of(found, 3)} hold NaN or "
                    f"infinity after step {self.steps_done}; the last checkpoint is kept. Fix: "
                    "lower optimizer.lr (--set optimizer.lr=... --force), or set precision: float32"
                )

        distributed.on_main(check)

    def open_folder(self) -> None:
        """Start the log files, and do what an earlier part of the run was killed before."""
        self.folder.settle()
        self.folder.open(self.config, first_step=self.steps_done)
        if self.source == self.folder.latest:
            self.folder.write_history(self.history)
            if not self.done:
                self.folder.keep_best(self.best, self.epoch)

    def is_save_due(self) -> bool:
        """Whether the config asks for a checkpoint now, inside the epoch."""
        done, when = self._saved
        by_steps = self.config.save_every and self.done - done >= self.config.save_every
        by_time = self.config.save_minutes
        return bool(by_steps) or bool(by_time and time.monotonic() - when >= 60 * by_time)

    def set_lr(self, step: int) -> float:
        """Set the learning rate of a step of the run; returns the backbone's."""
        steps = len(self.train) * self.config.epochs
        return set_poly_lr(self.optimizer, step, steps, self.config.optimizer.power)

    def step(self, raw: RawBatch) -> dict[str, Tensor]:
        """The run's next step; returns its scalars, on the device."""
        scalars = self.optimize(raw, self.steps_done)
        self.done += 1
        self.means.add(scalars)
        return scalars

    def end_epoch(self, record: dict[str, Any]) -> None:
        """Count the epoch as done, with its record, and save."""
        self.epoch, self.done, self.means = self.epoch + 1, 0, Means()
        self.history.append(record)
        self.save()

    def optimize(self, raw: RawBatch, step: int) -> dict[str, Tensor]:
        """Optimizer step `step` of the run on a raw batch; returns scalars, on the device, among
        them the norm of the gradient; the optimizer skips the step where it is not finite."""
        config, device = self.config, self.device
        seed_step(config.seed, distributed.rank(), step)
        self.optimizer.zero_grad(set_to_none=True)
        statistics = self._statistics.now()
        totals: dict[str, Tensor] = {}
        parts = split_batch(raw, config.micro_batch)
        for number, part in enumerate(parts, start=1):
            batch = self.views(part)
            with distributed.no_sync(self.wrapped, last=number == len(parts)):
                with autocast(device, config.precision):
                    loss, scalars = self.wrapped(batch)
                self.scaler.scale(loss / len(parts)).backward()
            for name, value in {"loss": loss, **scalars}.items():
                totals[name] = totals.get(name, 0) + value.detach() / len(parts)
        groups = self.optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        totals["grad_norm"] = self.scaler.unscale(nn.utils.get_total_norm(gradients))
        step_if_finite(self.optimizer, totals["grad_norm"], self.scaler.value)
        self.scaler.update(totals["loss"], totals["grad_norm"])
        distributed.average_batchnorm(self.method)
        self._statistics.restore_unless_finite(statistics)
        self.method.after_step(step)
        return totals

    def views(self, raw: RawBatch) -> Batch:
        """What the method sees of a raw batch, on the device."""
        raw, flip = to_device(raw, self.device), self.config.cutmix_partner == "flip"
        return make_views(raw, self.mean, self.std, flip, self.config.data.rgb_channels)

    def evaluate(
        self,
        network: nn.Module,
        mode: str,
        pseudo_labels: PseudoLabelScores | None = None,
        batches: Iterable[dict[str, Any]] | None = None,
    ) -> Scores:
        """Scores of a network on the validation images, or on `batches` of one each."""
        return evaluate(
            network,
            self.val if batches is None else batches,
            self.config,
            mode=mode,
            device=self.device,
            volumes=self.volumes,
            pseudo_labels=pseudo_labels,
        )


def prepare(
    method_class: type[Method],
    config: Config,
    device: torch.device,
    folder: RunFolder,
    resume: str,
    force: bool = False,
) -> Training:
    """Check all that can be checked, then build.  What the user has to mend raises `UserError`
    here, on every process alike."""
    rank, world = distributed.rank(), distributed.world_size()
    # Found once: a run does not change its precision on another device without saying so.
    precision = precision_on(device, config.precision)
    config = config.model_copy(update={"precision": precision})
    # Rank 0 decides what the run continues from, and sends it to all: the others may find another
    # checkpoint, or none, on disks of their own.
    resumed = distributed.on_main(lambda: state_to_resume(folder, resume))
    lists = read_lists(config.data, method_class.unlabeled)
    volumes = volume_indices([s.image for s in lists.val.samples], config.evaluation.volume_pattern)
    images = method_class.images_per_step(config)
    per_forward = images_per_forward(config, images, world)
    sizes = {name: identity(listed.samples) for name, listed in lists._asdict().items()}
    folder.origin = {"method": method_class.__name__, "images": sizes}
    files = {n: f"{of['images']} images, SHA-256 {of['sha256'][:12]}" for n, of in sizes.items()}
    settings = {"code": code_version(), "method": method_class.__name__, "split files": files}
    distributed.compare("settings", settings | config.model_dump(mode="json"))
    distributed.on_main(
        lambda: check_files(config.data, *lists, warn=logger.warning, val=lists.val)
    )
    config = with_class_weights(config, lists.labeled, device)
    if config.compile:
        require_compiler(device)

    if config.deterministic:
        be_deterministic()
    init_seed(config.seed)
    network = network_of(config.model, config.data)
    network.check_crop(config.crop_size)
    network.check_batch(per_forward * distributed.batchnorm_processes(device))
    if resumed is None:
        logger.info("%s", load_backbone(network, config.model, config.data.num_bands))
    method = method_class(network, config)
    distributed.sync_batchnorm(method.to(device), device)
    use_layout(method, config)
    if config.compile:
        compile_parts(method)

    workers = data_workers(config, distributed.processes_here())
    process = Process(rank, world, workers, cuda=device.type == "cuda")
    room = memory(lists, config.data)
    training = Training(
        config=config,
        device=device,
        folder=folder,
        method=method,
        wrapped=distributed.wrap(method, device),
        optimizer=build_optimizer(method, config.optimizer),
        scaler=LossScale(device, config.precision),
        train=training_loader(
            config, lists, room, images, per_forward, method_class.strong_views, process
        ),
        val=evaluation_loader(config, lists.val.samples, process, room.val),
        volumes=volumes,
        images=sizes,
    )
    if resumed is not None:
        state, source = resumed
        training.load_state(state, source, force)
        logger.info("%s: resumed after epoch %d, step %d", source, training.epoch, training.done)
    distributed.compare("progress", {"epoch": training.epoch, "step": training.steps_done})
    return training
