"""The one training loop: `main` of every method, and `fit`."""

import functools
import time
from collections.abc import Iterable
from typing import Any

from torch import nn

from dataset.loaders import batch_at, starting_at
from engine.dry_run import rehearse, say_needs
from engine.loggers import check_trackers
from engine.method import Method
from engine.nonfinite import Guard
from engine.progress import Progress
from engine.run_dir import RunFolder
from engine.training import Training, prepare
from engine.visualize import take_pictures
from inference.evaluation import Scores, score_title, summary, table
from metrics.calibration import PseudoLabelScores, trust_line, trust_values
from util import distributed, plotting
from util.cli import arguments, exit_with_one_line
from util.config.loading import load_config
from util.interrupt import Interrupted, StopRequest, leaving_when_asked, stop_requests
from util.log import logger, say_to_console


def main(method: type[Method]) -> None:
    """The command line of a method."""
    options = arguments(method.__name__, method.unlabeled)
    with exit_with_one_line(), leaving_when_asked():
        config = load_config(options.config, options.set, options.overrides)
        method.read_options(config)
        check_trackers(config)
        device = distributed.choose_device(options.device)
        # A rank that fails says why before its connections close, which ends the others.
        with distributed.session(device), exit_with_one_line():
            say_to_console()
            distributed.compare("options", {"--dry-run": options.dry_run})
            folder = RunFolder(options.save_path)
            if not options.dry_run:
                distributed.on_main(folder.lock)
            training = prepare(method, config, device, folder, options.resume, options.force)
            dry_run(training) if options.dry_run else fit(training)


def fit(t: Training) -> None:
    """Train to the end: epochs of steps, each followed by a validation and a checkpoint.

    Raises `Interrupted`, with all saved, when it is asked to stop.
    """
    batch_of = functools.partial(batch_at, t.train)
    guard = Guard(t.config.nonfinite_limit, t.folder.path, batch_of)
    try:
        distributed.on_main(t.open_folder)
        if distributed.on_main(lambda: t.source not in (None, t.folder.latest)):
            t.save()  # what it begins with, for a restart before its next checkpoint
        with stop_requests() as stop:
            while t.epoch < t.config.epochs:
                record = train_epoch(t, guard, stop)
                finish_epoch(t, record)
                pause(t, guard, stop)
        distributed.on_main(t.folder.settle)
    finally:
        t.folder.close()
    for name, best in t.best.items():
        title = score_title(t.config)
        logger.info("%s: best %s %.2f, epoch %d", name, title, best["score"], best["epoch"])


def train_epoch(t: Training, guard: Guard, stop: StopRequest) -> dict[str, Any]:
    """The steps of an epoch that are not done yet; returns the epoch's record."""
    progress = Progress(t.epoch, t.config.epochs, len(t.train), t.done, t.folder)
    batches: Iterable[Any] = progress.over(starting_at(t.train, t.epoch, t.done))
    if distributed.world_size() == 1:
        batches = stop.interrupting(batches)
    for raw in batches:
        step = t.steps_done
        lr = t.set_lr(step)
        scalars = t.step(raw)
        guard.note(step, scalars)
        progress.add(scalars)
        if progress.due(step):
            progress.show(step, lr)
            t.nonfinite = guard.look(t.nonfinite)
        # Several processes decide together, at steps where they wait for each other anyway.
        if progress.due(step) or distributed.world_size() == 1:
            pause(t, guard, stop)
    if t.done < len(t.train):  # stopped while it waited for a batch
        pause(t, guard, stop)
    record = {"epoch": t.epoch + 1, "steps": t.steps_done, **progress.summary(t.means)}
    return {**record, "peak_memory": distributed.peak_memory(t.device)}


def pause(t: Training, guard: Guard, stop: StopRequest) -> None:
    """Save if that is due; raise `Interrupted` if any process was asked to stop."""
    due, stopping = distributed.anywhere(t.is_save_due(), bool(stop.by))
    if t.done and (due or stopping):
        t.nonfinite = guard.look(t.nonfinite)
        t.save()
    if stopping:
        distributed.on_main(t.folder.settle)
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
        t.check_weights()  # before a score of theirs counts; `save` checks them in every epoch
        distributed.on_main(t.folder.settle)
        begin = time.monotonic()
        record["scores"] = validate(t, epoch)
        record["validation_seconds"] = time.monotonic() - begin
        if t.config.log.pictures:
            distributed.on_main(lambda: show_pictures(t, record["scores"]))
        is_best = any(best["epoch"] == epoch + 1 for best in t.best.values())
    t.method.after_epoch(epoch, is_best)
    t.end_epoch(record)
    distributed.on_main(lambda: t.folder.keep_best(t.best, t.epoch))


def show_pictures(t: Training, scores: dict[str, Any]) -> None:
    """Pictures of images, and how far pseudo-labels can be trusted, where `scores` tell."""
    found = take_pictures(t)
    for record in scores.values():
        if "pseudo_labels" in record:
            figure = plotting.reliability_diagram(record["pseudo_labels"], t.epoch + 1)
            found["reliability"] = plotting.as_image(figure)
    t.folder.pictures(found, t.epoch + 1, t.steps_done)


def dry_run(t: Training) -> None:
    """Run everything once, change nothing, and say what the whole would take."""
    network, mode = t.method.model, t.config.evaluation.mode
    validate = functools.partial(t.evaluate, network, mode, None)
    # First, as it says what to do where the steps run out of memory.
    say_needs(type(t.method), t.config, steps=t.config.epochs * len(t.train))
    rehearse(t.config, t.device, network, t.train, t.step, t.val, validate)


def pseudo_label_scores(t: Training, network: nn.Module) -> PseudoLabelScores | None:
    """What watches the confidence of a network in validation, if that is the one that labels."""
    asked = t.config.log.pseudo_labels and t.method.unlabeled and network is t.method.labeler
    return PseudoLabelScores(t.config.num_classes, t.method.threshold, t.device) if asked else None


def tracked_scores(name: str, scores: Scores, classes: list[str]) -> dict[str, float]:
    """A network's scores, by the names that trackers give them."""
    per_class = zip(classes, scores.iou.tolist(), strict=True)
    values = {f"{name}/mIoU": scores.miou, f"{name}/accuracy": scores.accuracy}
    values |= {f"{name}_iou/{label}": 100 * iou for label, iou in per_class}
    if scores.dice is not None:
        values[f"{name}/Dice"] = scores.mean_dice
    return values


def validate(t: Training, epoch: int) -> dict[str, Any]:
    """Score the method's networks, log the scores and keep the best; returns them by network."""
    config = t.config
    cheap = epoch < config.evaluation.center_crop_epochs
    mode = "center_crop" if cheap else config.evaluation.mode
    records = {}
    for name, network in t.method.eval_models().items():
        labels = pseudo_label_scores(t, network)
        scores = t.evaluate(network, mode, labels)
        records[name] = {"mode": mode, **summary(scores)}
        # A score under the cheap mode is never compared with one under the config's.
        score = scores.selected(config)
        if mode == config.evaluation.mode and score > t.best.get(name, {}).get("score", -1.0):
            t.best[name] = {"score": score, "epoch": epoch + 1}
        best = f", best {t.best[name]['score']:.2f}" if name in t.best else ""
        logger.info(
            "epoch %d/%d %s (%s): %s %.2f%s\n%s",
            epoch + 1,
            config.epochs,
            name,
            mode,
            score_title(config),
            score,
            best,
            table(scores, config.data.classes),
        )
        values = tracked_scores(name, scores, config.data.classes)
        if labels is not None:
            records[name]["pseudo_labels"] = trust = labels.summary()
            logger.info("pseudo-labels by %s: %s", name, trust_line(trust))
            values |= trust_values(trust, f"{name}_pseudo_labels", config.data.classes)
        t.folder.scalars({f"val/{k}": v for k, v in values.items()}, (epoch + 1) * len(t.train))
    return records
