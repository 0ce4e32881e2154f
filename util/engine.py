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
    at_epoch,
    data_workers,
    evaluation_loader,
    images_per_forward,
    split_batch,
    to_device,
    training_loader,
)
from dataset.strong import make_views
from model.build import build_network, load_backbone
from util import dist
from util.checkpoint import load, load_weights
from util.command import among_others, arguments, exit_with_one_line, fresh_or_resumed
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
from util.log import RunFolder, logger, say_to_console
from util.method import Batch, Method, Step
from util.optim import build_optimizer, set_poly_lr
from util.progress import Progress
from util.rehearsal import rehearse
from util.seed import init_seed, seed_step

__all__ = ["Batch", "Method", "Step", "main"]


def main(kind: type[Method]) -> None:
    """The command line of a method."""
    options = arguments(kind.__name__, kind.unlabeled)
    with exit_with_one_line(quiet=among_others()):
        config = load_config(options.config, options.set, options.overrides)
        kind.read_options(config)
        device = dist.choose_device(options.device)
    with dist.session(device):
        with exit_with_one_line(quiet=not dist.is_main()):
            say_to_console()
            folder = RunFolder(options.save_path)
            training = prepare(kind, config, device, folder, options.resume)
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
    """Epochs done."""
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    """Best mIoU and its epoch, by the name of the network."""
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mean, self.std = mean_and_std(self.config, self.device)

    def state(self) -> dict[str, Any]:
        return {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "best": self.best,
            "history": self.history,
            "name": type(self.method).__name__,
            "config": self.config.model_dump(mode="json"),
        }

    def load_state(self, state: Any, source: Path) -> None:
        """Continue where `state` ended; raises `UserError` for that of another run."""
        own = self.state()
        if not isinstance(state, dict) or not own.keys() <= state.keys():
            raise UserError(f"{source}: holds weights but no run that could be resumed")
        if state["name"] != own["name"]:
            raise UserError(f"{source}: a run of {state['name']}, expected one of {own['name']}")
        load_weights(self.method, state["method"], source)
        if changed := differences(state["config"], own["config"]):
            raise UserError(
                f"{source}: the run was begun with another config: {'; '.join(changed)}; resume "
                "with the same, or choose another --save-path"
            )
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.best, self.history = state["epoch"], state["best"], state["history"]

    def step(self, raw: Any, step: int) -> dict[str, Tensor]:
        """Optimizer step `step` of the run on a raw batch; returns scalars, on the device."""
        config, device = self.config, self.device
        seed_step(config.seed, dist.rank(), step)
        set_poly_lr(self.optimizer, step, len(self.train) * config.epochs, config.optimizer.power)
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        parts = split_batch(raw, config.micro_batch)
        for number, part in enumerate(parts, start=1):
            batch = make_views(to_device(part, device), self.mean, self.std)
            with dist.no_sync(self.wrapped, last=number == len(parts)):
                with autocast(device, config.precision):
                    loss, scalars = self.wrapped(batch)
                self.scaler.scale(loss / len(parts)).backward()
            for name, value in {"loss": loss, **scalars}.items():
                totals[name] = totals.get(name, 0) + value.detach() / len(parts)
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
    kind: type[Method], config: Config, device: torch.device, folder: RunFolder, resume: str
) -> Training:
    """Check all that can be checked, then build.  What the user has to mend raises `UserError`
    here, on every process alike."""
    rank, world = dist.rank(), dist.world_size()
    source = fresh_or_resumed(folder, resume)
    lists = read_lists(config.data, kind.unlabeled)
    images = config.batch_size * (1 if kind.unlabeled else 2)
    per_forward = images_per_forward(config, images, world)
    dist.main_checks(lambda: check_files(config.data, *lists))

    init_seed(config.seed)
    network = build_network(config.model, config.num_classes, kind.correlation)
    network.check_crop(config.crop_size)
    network.check_batch(per_forward * dist.batchnorm_processes(device))
    if source is None:
        logger.info("%s", load_backbone(network, config.model))
    method = kind(network, config)
    dist.sync_batchnorm(method.to(device), device)

    workers = data_workers(config, dist.processes_here())
    place = Place(rank, world, workers, cuda=device.type == "cuda")
    training = Training(
        config=config,
        device=device,
        folder=folder,
        method=method,
        wrapped=dist.wrap(method, device),
        optimizer=build_optimizer(network, config.optimizer),
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "float16"),
        train=training_loader(config, lists, images, kind.strong_views, place),
        val=evaluation_loader(config, lists.val.samples, place),
        volumes=volume_indices(
            [s.image for s in lists.val.samples], config.evaluation.volume_pattern
        ),
    )
    if source is not None:
        training.load_state(load(source), source)
        logger.info("%s: resumed after epoch %d", source, training.epoch)
    return training


def fit(t: Training) -> None:
    """Train to the end: epochs of steps, each followed by a validation and a checkpoint."""
    config, steps = t.config, len(t.train)
    t.folder.open(config, first_step=t.epoch * steps)
    t.folder.keep_best(t.best, t.epoch)
    for epoch in range(t.epoch, config.epochs):
        progress = Progress(epoch, config.epochs, steps, t.folder)
        for step, raw in enumerate(progress.over(at_epoch(t.train, epoch)), start=epoch * steps):
            scalars = t.step(raw, step)
            progress.add(scalars, step, t.optimizer.param_groups[0]["lr"])
        record = {"epoch": epoch + 1, "steps": (epoch + 1) * steps, **progress.summary()}

        if (epoch + 1) % config.evaluation.every == 0 or epoch + 1 == config.epochs:
            begin = time.monotonic()
            record["scores"] = validate(t, epoch)
            record["validation_seconds"] = time.monotonic() - begin
            is_best = any(best["epoch"] == epoch + 1 for best in t.best.values())
            t.method.after_eval(epoch, is_best)

        t.epoch = epoch + 1
        t.history.append(record)
        t.folder.save(t.state(), t.history)
        t.folder.keep_best(t.best, t.epoch)
    for name, best in t.best.items():
        logger.info("%s: best mIoU %.2f, epoch %d", name, best["miou"], best["epoch"])
    t.folder.close()


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
