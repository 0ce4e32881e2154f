"""The command of every method: check the inputs of a training run, build its `Trainer`, train."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dataset.cache import cache_bytes
from dataset.class_frequency import class_pixels, enet_weights, inverse_weights
from dataset.cross_validation import folds_digest
from dataset.loaders import (
    ImageLoader,
    TrainingLoader,
    evaluation_loader,
    images_per_forward,
    training_loader,
)
from dataset.overlap import shared_volumes
from dataset.split_files import Split, Splits, split_identity, split_order
from dataset.validation import check_files, read_splits, sizes_digest
from engine.checkpointing import state_to_resume
from engine.contract import require_loadable, require_own_name, require_registered, shapes
from engine.dry_run import Measurements, dry_run, measure
from engine.loggers import check_trackers
from engine.method import Method
from engine.optimizer import with_scaled_lr
from engine.run_dir import RunDir
from engine.trainer import RunData, Trainer
from engine.validation import warn_of_center_crops
from inference.evaluation import loader_process, volume_indices
from model.acceleration import compile_parts, require_compiler, use_layout
from model.build import network_from_config
from model.pretrained import load_backbone
from util import distributed
from util.cli import SPLIT_ADJECTIVES, arguments, exit_with_one_line
from util.config.loading import load_config
from util.config.schema import Config
from util.config.unused import unused_settings
from util.errors import counted
from util.interrupt import exiting_on_sigterm
from util.log import code_version, log_to_console, logger
from util.precision import precision_on
from util.seed import be_deterministic, init_seed

CLASS_WEIGHTS = {"auto": enet_weights, "enet": enet_weights, "inverse": inverse_weights}


def main(method: type[Method]) -> None:
    """Train a method with the config and the options of the command line."""
    args = arguments(method.__name__, method.unlabeled)
    with exit_with_one_line(), exiting_on_sigterm():
        require_own_name(method)
        config = load_config(args.config, args.set, args.overrides)
        method.read_options(config)
        check_trackers(config)
        device = distributed.choose_device(args.device)
        # A failing rank reports its error before its connections close, which ends the others.
        with distributed.session(device), exit_with_one_line():
            log_to_console()
            distributed.require_equal("options", {"--dry-run": args.dry_run})
            run_dir = RunDir(args.save_path)
            try:
                if not args.dry_run:
                    run_dir.lock()
                trainer = build_trainer(method, config, device, run_dir, args.resume, args.force)
                if args.dry_run:
                    dry_run(trainer)
                else:
                    trainer.fit()
            finally:
                run_dir.release()


def build_trainer(
    method_class: type[Method],
    config: Config,
    device: torch.device,
    run_dir: RunDir,
    resume: str,
    force: bool = False,
) -> Trainer:
    """Check everything that can be checked before training, then build.

    Raises `UserError`, on all ranks alike.
    """
    # Resolved once, so that a run does not change its precision silently on another device.
    precision = precision_on(device, config.precision)
    config = with_scaled_lr(config.model_copy(update={"precision": precision}))
    warn_of_center_crops(config)
    for message in unused_settings(config):
        logger.warning("%s", message)
    # Ranks may see different disks, so rank 0 decides and sends the content.
    resumed = distributed.on_main(state_to_resume, run_dir, resume)
    splits = read_splits(config.data, method_class.unlabeled)
    val_images = [sample.image for sample in splits.val.samples]
    volumes = volume_indices(val_images, config.evaluation.volume_pattern)
    global_batch = method_class.images_per_step(config)
    per_forward = images_per_forward(config, global_batch, distributed.world_size())
    orders = {name: split_order(split.samples) for name, split in splits._asdict().items()}
    facts = {"code": code_version(), "order of split files": orders}  # not in the config
    identities = _check_splits(method_class, config, splits, facts)
    run_dir.start_fields = {
        "method": method_class.__name__,
        "images": identities,
        "folds": folds_digest(config.data),
        "facts": facts,
        "class_weights": config.criterion.class_weights,  # the rule; the config gets its numbers
    }
    config = _with_class_weights(config, splits.labeled)

    # A checkpoint of LoRA adapters holds no pretrained weights.
    pretrained = resumed is None or config.model.lora > 0
    method = _build_method(method_class, config, device, per_forward, pretrained)
    train, val = _loaders(method_class, config, device, splits, per_forward)
    trainer = Trainer(method, config, device, run_dir, RunData(train, val, volumes, identities))
    if resumed is not None:
        trainer.resume(*resumed, force)
    return trainer


def measure_method(method_class: type[Method], config: Config) -> tuple[Measurements, int, int]:
    """Measure a step and a validation image without starting a run.

    Also returns the number of steps per epoch and of validation images. Raises `UserError` as
    `build_trainer`.
    """
    with TemporaryDirectory() as folder:
        device = distributed.choose_device("auto")
        run_dir = RunDir(Path(folder))
        trainer = build_trainer(method_class, config, device, run_dir, "never")
        return measure(trainer), len(trainer.train_loader), len(trainer.val_loader)


def _check_splits(
    method_class: type[Method], config: Config, splits: Splits, facts: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Check that all ranks have the same `facts`, settings, split files and images, and the files
    of the images; return the identities of the split files. Raises `UserError`."""
    identities = {name: split_identity(split.samples) for name, split in splits._asdict().items()}
    files = {
        name: f"{counted(identity['images'], 'image')}, SHA-256 {identity['sha256'][:12]}"
        for name, identity in identities.items()
    }
    settings = {"method": method_class.__name__, "split files": files, **facts}
    distributed.require_equal("settings", settings | config.model_dump(mode="json"))
    sizes = ", ".join(
        f"{identity['images']} {SPLIT_ADJECTIVES[name]}"
        for name, identity in identities.items()
        if identity["images"]
    )
    logger.info("checking the files of %s images", sizes)
    distributed.on_main(check_files, config.data, *splits, scored=splits.val)
    if distributed.is_main():
        trained = [splits.labeled, splits.unlabeled]
        if shared := shared_volumes(splits.val, trained, config.evaluation.volume_pattern):
            logger.warning("%s", shared)
    if distributed.processes_here() < distributed.launched_world_size():  # several machines
        digests = {name: sizes_digest(split) for name, split in splits._asdict().items()}
        distributed.require_equal("files", {"sizes of files": digests})
    return identities


def _with_class_weights(config: Config, labeled: Split) -> Config:
    """Return the config with numbers in place of a named rule in `criterion.class_weights`.

    Rank 0 counts the pixels. Raises `UserError` for a faulty mask.
    """
    rule = config.criterion.class_weights
    if not isinstance(rule, str):
        return config
    masks = counted(len(labeled.samples), "mask")
    logger.info("criterion.class_weights: counting classes in %s", masks)
    pixels = distributed.on_main(class_pixels, labeled, config.data)
    weights = CLASS_WEIGHTS[rule](pixels)
    logger.info("class weights: %s", ", ".join(f"{weight:g}" for weight in weights))
    return config.with_class_weights(weights)


def _loaders(
    method_class: type[Method],
    config: Config,
    device: torch.device,
    splits: Splits,
    per_forward: int,
) -> tuple[TrainingLoader, ImageLoader]:
    """Return loaders of this process's training batches and validation images."""
    process = loader_process(config, device)
    cache_sizes = cache_bytes(splits, config.data)
    global_batch = method_class.images_per_step(config)
    strong_views = method_class.strong_views
    train = training_loader(
        config, splits, cache_sizes, global_batch, per_forward, strong_views, process
    )
    return train, evaluation_loader(config, splits.val.samples, process, cache_sizes.val)


def _build_method(
    method_class: type[Method],
    config: Config,
    device: torch.device,
    per_forward: int,
    pretrained: bool,
) -> Method:
    """Build network and method on the device; `per_forward`: labelled images in a forward pass."""
    if config.compile:
        require_compiler(device)
    if config.deterministic:
        be_deterministic()
    init_seed(config.seed)
    network = network_from_config(config.model, config.data)
    network.check_crop(config.crop_size)
    network.check_batch(per_forward * distributed.batchnorm_processes(device))
    if config.model.lock_backbone and config.model.pretrained == "none":
        logger.warning(
            "model.lock_backbone freezes random weights (model.pretrained: none). Fix: set "
            "model.pretrained, or model.lock_backbone=false"
        )
    if pretrained:
        logger.info("%s", load_backbone(network, config.model, config.data.num_bands))
    expected = shapes(network)  # before the method may change it
    method = method_class(network, config)
    require_registered(method)
    require_loadable(method, expected)
    distributed.sync_batchnorm(method.to(device), device)
    use_layout(method, config)
    if config.compile:
        logger.info("compile: the first steps take minutes")
        compile_parts(method)
    return method
