"""The one training loop: `main` of every method, what it prepares, and `fit`."""

import functools
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dataset.check import check_files, read_lists
from dataset.loaders import (
    Place,
    batch_at,
    data_workers,
    evaluation_loader,
    images_per_forward,
    split_batch,
    starting_at,
    to_device,
    training_loader,
)
from dataset.strong import make_views
from model.build import build_network, load_backbone
from util import dist
from util.checkpoint import load_weights
from util.command import among_others, arguments, exit_with_one_line, state_to_resume
from util.config import Config
from util.config_file import differences, load_config
from util.errors import UserError
from util.evaluation import (
    Scores,
    autocast,
    evaluate,
    mean_and_std,
    summary,
    table,
    volume_indices,
)
from util.guard import Guard, build_scaler
from util.interrupt import Interrupted, StopRequest, leaving_when_asked, stop_requests
from util.log import RunFolder, logger, say_to_console
from util.method import Batch, Method, Step
from util.optim import build_optimizer, load_optimizer, set_poly_lr
from util.progress import Means, Progress
from util.rehearsal import rehearse
from util.run_state import check_run
from util.seed import be_deterministic, init_seed, seed_step
from util.speed import compile_parts, use_layout

__all__ = ["Batch", "Method", "Step", "main"]


def main(kind: type[Method]) -> None:
    """The command line of a method."""
    options = arguments(kind.__name__, kind.unlabeled)
    with exit_with_one_line(quiet=among_others()):
        config = load_config(options.config, options.set, options.overrides)
        kind.read_options(config)
        device = dist.choose_device(options.device)
    with leaving_when_asked(), dist.session(device):
        with exit_with_one_line(quiet=not dist.is_main()):
            say_to_console()
            folder = RunFolder(options.save_path)
            if not options.dry_run:
                dist.main_checks(folder.lock)
            training = prepare(kind, config, device, folder, options.resume, options.force)
        with exit_with_one_line():
            dry_run(training) if options.dry_run else fit(training)


@dataclass
class Training:
    """What `prepare` builds and `fit` runs: the parts, and how far it got."""

    config: Config
    device: torch.device
    folder: RunFolder
    method: Method
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    train: DataLoader
    val: DataLoader
    volumes: list[int]
    epoch: int = 0
    """Epochs done ..."""
    done: int = 0
    """... and steps of the next one."""
    means: Means = field(default_factory=Means)
    """Of the scalars of these steps."""
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    """Best mIoU and its epoch, by the name of the network."""
    history: list[dict[str, Any]] = field(default_factory=list)
    source: Path | None = None
    """The checkpoint it was resumed from."""

    def __post_init__(self) -> None:
        self.mean, self.std = mean_and_std(self.config, self.device)
        self._saved = (0, time.monotonic())

    def state(self) -> dict[str, Any]:
        return {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "done": self.done,
            "means": self.means.state(),
            "best": self.best,
            "history": self.history,
            "name": type(self.method).__name__,
            "config": self.config.model_dump(mode="json"),
        }

    def load_state(self, state: Any, source: Path, force: bool) -> None:
        """Continue where `state` ended; raises `UserError` for that of another run, or of the same
        with another config, unless by `force`."""
        own = self.state()
        check_run(state, own["name"], source)
        load_weights(self.method, state["method"], source)
        if changed := "; ".join(differences(state["config"], own["config"])):
            if not force:
                raise UserError(
                    f"{source}: the run was begun with another config: {changed}; resume with the "
                    "same, choose another --save-path, or say --force"
                )
            logger.warning("%s: goes on with another config: %s", source, changed)
        load_optimizer(self.optimizer, state["optimizer"], source)
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.done, self.means = state["epoch"], state["done"], Means(state["means"])
        self.best, self.history = state["best"], state["history"]
        self.source, self._saved = source, (self.done, time.monotonic())

    def save(self) -> None:
        """Write a checkpoint; with several processes, all of them take part."""
        state = self.state()
        dist.main_checks(lambda: self.folder.save(state, self.history))
        self._saved = (self.done, time.monotonic())

    def open_folder(self) -> None:
        """Start the log files, and do what an earlier part of the run was killed before."""
        self.folder.open(self.config, first_step=self.epoch * len(self.train) + self.done)
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

    def step(self, raw: Any, step: int) -> dict[str, Tensor]:
        """Optimizer step `step` of the run on a raw batch; returns scalars, on the device, among
        them the norm of the gradient.  With one that is not finite, the scaler skips the step."""
        config, device = self.config, self.device
        seed_step(config.seed, dist.rank(), step)
        set_poly_lr(self.optimizer, step, len(self.train) * config.epochs, config.optimizer.power)
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        parts = split_batch(raw, config.micro_batch)
        for number, part in enumerate(parts, start=1):
            part, flip = to_device(part, device), config.cutmix_partner == "flip"
            batch = make_views(part, self.mean, self.std, flip)
            with dist.no_sync(self.wrapped, last=number == len(parts)):
                with autocast(device, config.precision):
                    loss, scalars = self.wrapped(batch)
                self.scaler.scale(loss / len(parts)).backward()
            for name, value in {"loss": loss, **scalars}.items():
                totals[name] = totals.get(name, 0) + value.detach() / len(parts)
        self.scaler.unscale_(self.optimizer)
        groups = self.optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        totals["grad_norm"] = nn.utils.get_total_norm(gradients)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        dist.average_batchnorm(self.method)
        self.method.after_step(step)
        return totals

    def evaluate(self, network: nn.Module, mode: str, limit: int | None = None) -> Scores:
        return evaluate(
            network,
            itertools.islice(self.val, limit),
            self.config,
            mode=mode,
            device=self.device,
            volumes=self.volumes,
        )


def prepare(
    kind: type[Method],
    config: Config,
    device: torch.device,
    folder: RunFolder,
    resume: str,
    force: bool = False,
) -> Training:
    """Check all that can be checked, then build.  What the user has to mend raises `UserError`
    here, on every process alike."""
    rank, world = dist.rank(), dist.world_size()
    resumed = state_to_resume(folder, resume)
    lists = read_lists(config.data, kind.unlabeled)
    images = config.batch_size * (1 if kind.unlabeled else 2)
    per_forward = images_per_forward(config, images, world)
    dist.main_checks(lambda: check_files(config.data, *lists, warn=logger.warning))

    if config.deterministic:
        be_deterministic()
    init_seed(config.seed)
    network = build_network(config.model, config.num_classes, kind.correlation)
    network.check_crop(config.crop_size)
    network.check_batch(per_forward * dist.batchnorm_processes(device))
    if resumed is None:
        logger.info("%s", load_backbone(network, config.model))
    method = kind(network, config)
    dist.sync_batchnorm(method.to(device), device)
    use_layout(method, config)
    if config.compile:
        compile_parts(method)

    workers = data_workers(config, dist.processes_here())
    place = Place(rank, world, workers, cuda=device.type == "cuda")
    training = Training(
        config=config,
        device=device,
        folder=folder,
        method=method,
        wrapped=dist.wrap(method, device),
        optimizer=build_optimizer(network, config.optimizer),
        scaler=build_scaler(device, config.precision),
        train=training_loader(config, lists, images, per_forward, kind.strong_views, place),
        val=evaluation_loader(config, lists.val.samples, place),
        volumes=volume_indices(
            [s.image for s in lists.val.samples], config.evaluation.volume_pattern
        ),
    )
    if resumed is not None:
        state, source = resumed
        training.load_state(state, source, force)
        logger.info("%s: resumed after epoch %d, step %d", source, training.epoch, training.done)
    return training


def fit(t: Training) -> None:
    """Train to the end: epochs of steps, each followed by a validation and a checkpoint.

    Raises `Interrupted`, with all saved, when it is asked to stop.
    """
    batch_of = functools.partial(batch_at, t.train)
    guard = Guard(t.method, t.config.nonfinite_limit, t.folder.path, batch_of)
    try:
        dist.main_checks(t.open_folder)
        with stop_requests() as stop:
            while t.epoch < t.config.epochs:
                record = train_epoch(t, guard, stop)
                finish_epoch(t, record)
                pause(t, guard, stop)
        dist.main_checks(t.folder.settle)
    finally:
        t.folder.close()
    for name, best in t.best.items():
        logger.info("%s: best mIoU %.2f, epoch %d", name, best["miou"], best["epoch"])


def train_epoch(t: Training, guard: Guard, stop: StopRequest) -> dict[str, Any]:
    """The steps of an epoch that are not done yet; returns the epoch's record."""
    steps = len(t.train)
    progress = Progress(t.epoch, t.config.epochs, steps, t.folder, t.done, t.means)
    for raw in progress.over(starting_at(t.train, t.epoch, t.done)):
        step = t.epoch * steps + t.done
        scalars = t.step(raw, step)
        t.done += 1
        guard.note(step, dict(scalars))
        del scalars["grad_norm"]
        fetched = progress.add(scalars, step, t.optimizer.param_groups[0]["lr"])
        if fetched:
            guard.look()
        # Several processes decide together, at steps where they wait for each other anyway.
        if fetched or dist.world_size() == 1:
            pause(t, guard, stop)
    return {"epoch": t.epoch + 1, "steps": (t.epoch + 1) * steps, **progress.summary()}


def pause(t: Training, guard: Guard, stop: StopRequest) -> None:
    """Save if that is due; raise `Interrupted` if any process was asked to stop."""
    due, stopping = dist.anywhere(t.is_save_due(), bool(stop.by))
    if t.done and (due or stopping):
        guard.look()
        t.save()
    if stopping:
        dist.main_checks(t.folder.settle)
        logger.info(
            "stopped by %s after epoch %d, step %d; the same command goes on from there",
            stop.by or "a signal",
            t.epoch,
            t.done,
        )
        raise Interrupted


def finish_epoch(t: Training, record: dict[str, Any]) -> None:
    """Validate where the config says so, and save."""
    epoch, every = t.epoch, t.config.evaluation.every
    is_best = False
    if (epoch + 1) % every == 0 or epoch + 1 == t.config.epochs:
        dist.main_checks(t.folder.settle)
        begin = time.monotonic()
        record["scores"] = validate(t, epoch)
        record["validation_seconds"] = time.monotonic() - begin
        is_best = any(best["epoch"] == epoch + 1 for best in t.best.values())
    t.method.after_epoch(epoch, is_best)
    t.epoch, t.done, t.means = epoch + 1, 0, Means()
    t.history.append(record)
    t.save()
    dist.main_checks(lambda: t.folder.keep_best(t.best, t.epoch))


def dry_run(t: Training) -> None:
    """Run everything once, change nothing, and say what the whole would take."""
    network, mode = t.method.model, t.config.evaluation.mode
    one = functools.partial(t.evaluate, network, mode, limit=1)
    rehearse(t.config, t.device, network, t.train, t.step, one, len(t.volumes))


def validate(t: Training, epoch: int) -> dict[str, Any]:
    """Score the method's networks, log the scores and keep the best; returns them by network."""
    config = t.config
    cheap = epoch < config.evaluation.center_crop_epochs
    mode = "center_crop" if cheap else config.evaluation.mode
    records = {}
    for name, network in t.method.eval_models().items():
        scores = t.evaluate(network, mode)
        records[name] = {"mode": mode, **summary(scores)}
        # A score under the cheap mode is never compared with one under the config's.
        if mode == config.evaluation.mode and scores.miou > t.best.get(name, {}).get("miou", -1.0):
            t.best[name] = {"miou": scores.miou, "epoch": epoch + 1}
        best = f", best {t.best[name]['miou']:.2f}" if name in t.best else ""
        logger.info(
            "epoch %d/%d %s (%s): mIoU %.2f%s\n%s",
            epoch + 1,
            config.epochs,
            name,
            mode,
            scores.miou,
            best,
            table(scores, config.data.classes),
        )
        per_class = zip(config.data.classes, scores.iou.tolist(), strict=True)
        values = {f"{name}/mIoU": scores.miou, f"{name}/accuracy": scores.accuracy}
        values |= {f"{name}_iou/{label}": 100 * iou for label, iou in per_class}
        t.folder.scalars({f"val/{k}": v for k, v in values.items()}, (epoch + 1) * len(t.train))
    return records
