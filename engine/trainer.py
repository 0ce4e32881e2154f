"""A training run: epochs of steps, each followed by a validation and a checkpoint."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dataset.batch import Batch, RawBatch
from dataset.loaders import ImageLoader, TrainingLoader, split_batch, to_device
from dataset.views import make_views
from engine.checkpointing import RunState, check_run
from engine.contract import require_same_parts, shapes, warn_of_missing_gradients
from engine.method import Method
from engine.nonfinite import NonfiniteMonitor
from engine.optimizer import (
    LossScale,
    build_optimizer,
    keeping_statistics_finite,
    load_optimizer,
    set_poly_lr,
)
from engine.progress import Means, Progress
from engine.run_dir import RunDir
from engine.save_clock import SaveClock
from engine.validation import score_network
from engine.visualize import save_pictures
from inference.scores import score_title
from model.checkpoint import load_weights
from model.files import best_checkpoint
from util import distributed
from util.config.schema import Config
from util.errors import UserError, counted, shell_quoted
from util.interrupt import Interrupted, StopRequest, stop_requests
from util.log import logger
from util.normalize import mean_and_std
from util.precision import autocast
from util.seed import seed_step


class RunData(NamedTuple):
    """Data of a run, on one process."""

    train_loader: TrainingLoader
    val_loader: ImageLoader
    volumes: list[int]
    """Volume of each validation image."""
    identities: dict[str, Any]
    """Identities of the split files, by labeled, unlabeled and val."""


class Trainer:
    """Train a method: `fit` calls `train_epoch`, `validate` and `save` until the last epoch.

    `engine.command.build_trainer` makes one from a config; `resume` continues an earlier run.
    """

    def __init__(
        self,
        method: Method,
        config: Config,
        device: torch.device,
        run_dir: RunDir,
        data: RunData,
    ):
        self.method, self.config = method, config
        self.device, self.run_dir = device, run_dir
        self.train_loader, self.val_loader, self.volumes, self.identities = data
        self.ddp_method = distributed.wrap(method, device)
        self.optimizer = build_optimizer(method, config.optimizer)
        self.loss_scale = LossScale(device, config.precision)
        self.monitor = NonfiniteMonitor(config.nonfinite_limit, run_dir, self.train_loader)
        self.mean, self.std = mean_and_std(config, device)
        self.score_title = score_title(config)
        self.save_clock = SaveClock(config)
        self.shapes = shapes(method)

        self.steps_per_epoch = len(self.train_loader)
        self.epoch = 0
        """Completed epochs, validation included."""
        self.epoch_steps_done = 0
        """Completed steps of the current epoch."""
        self.means = Means()
        """Running means of the current epoch's scalars."""
        self.best: dict[str, dict[str, float]] = {}
        """Best score and its epoch, by the name of the network."""
        self.history: list[dict[str, Any]] = []
        """Records of the completed epochs, as in metrics.jsonl."""
        self.resumed_from: Path | None = None
        """Checkpoint that the run was resumed from."""

    @property
    def steps_done(self) -> int:
        """Completed steps of the run."""
        return self.epoch * self.steps_per_epoch + self.epoch_steps_done

    def fit(self) -> None:
        """Train to the end.

        Raises `Interrupted`, with everything saved, when a signal asks the run to stop.
        """
        try:
            self._open_run_dir()
            first = self.epoch
            with stop_requests() as stop:
                while self.epoch < self.config.epochs:
                    record = self.train_epoch(stop, legend=self.epoch == first)
                    if self._is_validated(self.epoch + 1):
                        record |= self.validate()
                    self._end_epoch(record)
                    self._save_or_stop(stop)
            self.run_dir.wait_for_writes()
        finally:
            self.run_dir.close()
        self._log_result()

    def train_epoch(self, stop: StopRequest, legend: bool = False) -> dict[str, Any]:
        """Take the remaining steps of the epoch; return the epoch's record.

        `legend`: explain the names of the losses.
        """
        steps = self.steps_per_epoch
        progress = Progress(
            self.run_dir, self.epoch, self.config.epochs, steps, self.epoch_steps_done, legend,
            self._validation_seconds_left(),
        )  # fmt: skip
        is_single_process = distributed.world_size() == 1
        stoppable = stop.until_signal if is_single_process else stop.with_stop_timeout
        self.save_clock.start_epoch(self.steps_done)
        batches = self.train_loader.start_at(self.epoch, self.epoch_steps_done)
        for raw in stoppable(progress.over(batches)):
            step = self.steps_done
            lr = self._set_lr(step)
            scalars = self.optimize(raw, step)
            self.epoch_steps_done += 1
            self.monitor.add(step, scalars)
            self.means.add(scalars)
            is_shown = progress.add(step, scalars, lr)
            if is_shown:
                self.monitor.check()
            # ranks synchronise anyway where scalars are shown
            if is_shown or self.save_clock.is_decision_due(self.epoch_steps_done):
                self._save_or_stop(stop)
        if self.epoch_steps_done < steps:  # asked to stop while waiting for a batch
            self._save_or_stop(stop)
        record = {"epoch": self.epoch + 1, "steps": self.steps_done, **progress.summary(self.means)}
        return {**record, "peak_memory": distributed.peak_memory(self.device)}

    def optimize(self, raw: RawBatch, step: int) -> dict[str, Tensor]:
        """Take optimizer step `step` of the run on a raw batch, in micro-batches.

        Returns scalars on the device, including the gradient norm; the optimizer skips the step if
        the norm is not finite.
        """
        config, device = self.config, self.device
        seed_step(config.seed, distributed.rank(), step)
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        parts = split_batch(raw, config.micro_batch)
        with keeping_statistics_finite(self.method):
            for number, part in enumerate(parts, start=1):
                batch = self.views(part)
                with distributed.no_sync(self.ddp_method, last=number == len(parts)):
                    with autocast(device, config.precision):
                        loss, scalars = self.ddp_method(batch)
                    self.loss_scale.scale(loss / len(parts)).backward()
                for name, value in {"loss": loss, **scalars}.items():
                    scalar = torch.as_tensor(value, device=device).detach()
                    totals[name] = totals.get(name, 0) + scalar / len(parts)
            if step == 0:
                require_same_parts(self.method, self.shapes)
                warn_of_missing_gradients(self.method)
            totals["grad_norm"] = self.loss_scale.step(self.optimizer, totals["loss"])
            distributed.average_batchnorm(self.method)
        self.method.after_step(step)
        return totals

    def validate(self) -> dict[str, Any]:
        """Score the method's networks and keep the best; return the scores as a record."""
        self.run_dir.refuse_nonfinite(self.state())
        self.run_dir.wait_for_writes()
        begin = time.monotonic()
        networks = self.method.eval_models()
        scores = {name: score_network(self, name, network) for name, network in networks.items()}
        seconds = time.monotonic() - begin
        if self.config.log.pictures:
            distributed.on_main(save_pictures, self, scores)
        return {"scores": scores, "validation_seconds": seconds}

    def save(self) -> None:
        """Write a checkpoint; all ranks take part.

        Keeps the last checkpoint, and raises `UserError` for weights that are not finite, and
        `ValueError` for other shapes than at the start.
        """
        require_same_parts(self.method, self.shapes)
        state = self.state()
        self.run_dir.refuse_nonfinite(state)
        self.run_dir.save(state)
        self.save_clock.saved(self.epoch_steps_done)

    def state(self) -> dict[str, Any]:
        """Return the content of a checkpoint, see `RunState`."""
        return {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.loss_scale.state(),
            "epoch": self.epoch,
            "done": self.epoch_steps_done,
            "means": self.means.state(),
            "best": self.best,
            "history": self.history,
            "name": type(self.method).__name__,
            "config": self.config.model_dump(mode="json"),
            "images": self.identities,
            "epoch_length": self.steps_per_epoch,
            "nonfinite": self.monitor.in_a_row,
        }

    def resume(self, state: Any, source: Path, force: bool) -> None:
        """Continue from the content of the checkpoint `source`.

        Best scores whose checkpoints are not in the run directory are not kept. Raises `UserError`
        for a checkpoint of another method or with more steps, and, without `force`, for another
        config or other split files.
        """
        current = self.state()
        saved = check_run(state, current["name"], source)
        if (saved.epoch, saved.done) > (self.config.epochs, 0):
            raise UserError(
                f"epochs: found {self.config.epochs}, but {source} already has "
                f"{counted(saved.epoch, 'epoch')} and {counted(saved.done, 'step')}; epochs counts "
                f"the whole run. Fix: set epochs to at least {saved.epoch + 1}"
            )
        changed = saved.compare(current, source, force)
        saved.drop_best(source, self.run_dir)
        # From `state`: the check converted the dictionaries of `saved` to plain ones.
        load_weights(self.method, state["method"], source)
        if "optimizer.name" not in changed:
            load_optimizer(self.optimizer, state["optimizer"], source)
        if current["config"]["precision"] == saved.config.get("precision"):
            self.loss_scale.load_state(state["scaler"])
        self.means = Means(state["means"], self.device)
        self.epoch, self.history = saved.epoch, saved.history
        self.best = {name: best.model_dump() for name, best in saved.best.items()}
        self.monitor.in_a_row = saved.nonfinite
        self._keep_epoch_length(saved, source)
        # A shorter epoch_length ends the epoch here.
        self.epoch_steps_done = min(saved.done, self.steps_per_epoch)
        if self.steps_done:  # the next checkpoint equals that of an uninterrupted run
            self._set_lr(self.steps_done - 1)
        self.resumed_from = source
        self.save_clock.saved(self.epoch_steps_done)
        if self.epoch < self.config.epochs:
            logger.info("%s: resumed after %s", source, self._position())
        else:
            logger.info(
                "%s: the run is finished. To train longer: --set epochs=N --force (N includes the "
                "finished epochs)", source,
            )  # fmt: skip

    def _open_run_dir(self) -> None:
        """Open the log files, and write what a resumed run's directory lacks."""
        source = self.resumed_from
        resumes_in_place = source is not None and self.run_dir.is_latest(source)
        is_finished = resumes_in_place and self.epoch == self.config.epochs
        self.run_dir.open(self.config, self.steps_done, is_finished)
        if resumes_in_place:  # may have been killed after the checkpoint, before metrics.jsonl
            distributed.on_main(self.run_dir.restore, self.state())
        elif source is not None:
            self.save()  # a restart may come before the next checkpoint
            self.run_dir.wait_for_writes()  # before data workers start

    def _log_result(self) -> None:
        """Log the best scores, the files of the run, and the command that evaluates it."""
        for name, best in self.best.items():
            score, epoch = best["score"], best["epoch"]
            logger.info("%s: best %s %.2f, epoch %d", name, self.score_title, score, epoch)
        path = self.run_dir.path
        files = [best_checkpoint(path, name).name for name in self.best]
        files += ["latest.pth", "log.txt", "metrics.jsonl", "config.yaml"]
        logger.info("written  %s: %s", shell_quoted(path), ", ".join(files))
        checkpoint = path if "model" in self.best else self.run_dir.latest
        logger.info("next     python evaluate.py --checkpoint %s", shell_quoted(checkpoint))

    def _keep_epoch_length(self, saved: RunState, source: Path) -> None:
        """Keep the number of steps in an epoch where split files or batch_size changed since the
        run started, so that its steps and learning rates do not jump."""
        is_set = saved.config.get("epoch_length") or self.config.epoch_length
        if is_set or saved.epoch_length is None or saved.epoch_length == self.steps_per_epoch:
            return
        logger.warning(
            "%s: epochs keep their %s; one pass over the longer split is now %s",
            source, counted(saved.epoch_length, "step"), counted(self.steps_per_epoch, "step"),
        )  # fmt: skip
        self.steps_per_epoch = saved.epoch_length
        self.train_loader.set_epoch_length(self.steps_per_epoch)

    def views(self, raw: RawBatch) -> Batch:
        """Return the weak and strong views of a raw batch, on the device."""
        raw = to_device(raw, self.device)
        reverse = self.config.cutmix_partner == "flip"
        return make_views(raw, self.mean, self.std, reverse, self.config.data.rgb_channels)

    def _is_validated(self, number: int) -> bool:
        """Return True if a validation follows epoch `number`, from 1."""
        return number % self.config.evaluation.every == 0 or number == self.config.epochs

    def _validation_seconds_left(self) -> float:
        """Return the seconds of the validations left, each as long as the last one; 0 before it."""
        seconds = [r["validation_seconds"] for r in self.history if "validation_seconds" in r]
        left = sum(map(self._is_validated, range(self.epoch + 1, self.config.epochs + 1)))
        return left * seconds[-1] if seconds else 0.0

    def _set_lr(self, step: int) -> float:
        """Set the learning rates of a step of the run; return the first group's."""
        steps, power = self.config.epochs * self.steps_per_epoch, self.config.optimizer.power
        return set_poly_lr(self.optimizer, step, steps, power)

    def _end_epoch(self, record: dict[str, Any]) -> None:
        """Count the epoch as completed, and save."""
        networks, labeler = self.method.eval_models(), self.method.labeler
        name = next(name for name, network in networks.items() if network is labeler)
        is_best = self.best.get(name, {}).get("epoch") == self.epoch + 1
        self.method.after_epoch(self.epoch, is_best)
        self.epoch, self.epoch_steps_done = self.epoch + 1, 0
        self.history.append(record)
        self.save()

    def _save_or_stop(self, stop: StopRequest) -> None:
        """Save if a checkpoint is due; raise `Interrupted` if any process was asked to stop.

        While steps are being skipped, a due checkpoint waits: two checkpoints of diverged weights
        would replace both good ones.
        """
        is_due, is_stopping = self.save_clock.decide(
            self.steps_done, self.epoch_steps_done, bool(stop.signal_name)
        )
        if self.epoch_steps_done and (is_due or is_stopping):
            self.monitor.check()
            if is_stopping or not self.monitor.in_a_row:
                self.save()
        if is_stopping:
            self.run_dir.wait_for_writes()
            is_finished = self.epoch == self.config.epochs
            rest = "the run is finished" if is_finished else "the same command continues the run"
            logger.info(
                "stopped by %s after %s; %s", stop.signal_name or "a signal", self._position(), rest
            )
            raise Interrupted

    def _position(self) -> str:
        """Return the completed epochs, and the completed steps of the current one, if any."""
        epoch, step = f"epoch {self.epoch}", f", step {self.epoch_steps_done}"
        return epoch + step if self.epoch_steps_done else epoch
