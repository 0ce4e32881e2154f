"""Group runs that differ in seed or fold only; tabulate mean and standard deviation.

A table of runs is a DataFrame with a row for each group and scored network:

method, network, dataset, partition, settings, commit: text; `settings` names those that differ from
    the settings of most groups of the same dataset and network, and validation and unlabelled
    images that differ from those of most groups of the same partition
scored: student or teacher, where a method has both
labels, unlabeled, epochs, steps: numbers of images, epochs and optimizer steps, of the first run
run_labels, run_steps: lists with an item for each run, as folds may differ by an image
seeds, best_epochs, best_values, last_values: lists with an item for each run, by fold and seed
best_mean, best_std, last_mean, last_std: of the best and the last score; no std for one run
step_seconds, peak_memory: median over all epochs and runs; maximum, in bytes
published: the score of a paper, of those that `--published` names; of a student and its teacher, in
    the teacher's row
curves: for each run, score by epoch
classes: class names
class_scores: for each run, IoU of each class in the best epoch; Dice where that is the score
pseudo_labels: for each run, the quality of the pseudo-labels by epoch (`PseudoLabels`); empty for
    a network that makes none
group: index of the group
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean, median, stdev
from typing import Any

import pandas as pd

from tools.results.runs import Run, best_epoch
from util.errors import counted

Group = list[Run]
"""Finished runs of one method and the same settings, by fold and seed."""
NETWORK = {"model.network", "model.backbone"}
NOT_SHOWN = [
    "group", "run_labels", "run_steps", "curves", "classes", "class_scores", "pseudo_labels",
]  # fmt: skip
"""Columns of the table that CSV and JSON leave out."""
ROLES = {"model": "student", "model_ema": "teacher"}


def group_runs(runs: Iterable[Run]) -> tuple[list[Group], list[str]]:
    """Return groups by dataset, network and number of labels, and remarks on runs left out."""
    by_settings: dict[tuple[object, ...], dict[tuple[Any, int], Run]] = defaultdict(dict)
    remarks = []
    for run in runs:
        seed, settings = run.config.seed, repr(sorted(run.settings.items()))
        number = int(run.fold.name.removeprefix("fold_")) if run.fold else 0
        images = tuple(run.identity.items())
        group = by_settings[run.method, run.config.data.name, run.partition, images, settings]
        if not run.is_finished:
            starts = f", started {len(run.starts)} times" if len(run.starts) > 1 else ""
            remarks.append(f"left out, unfinished: {run.path} ({run.progress}{starts})")
        elif not all(run.curve(network, "miou") for network in run.networks or [""]):
            remarks.append(f"left out, never validated in the config's mode: {run.path}")
        elif twin := group.get((number, seed)):
            but = ""
            if run.root != twin.root:
                but = f", but data.root {run.root} instead of {twin.root}"
            if run.digests != twin.digests:
                but += ", but other images"
            remarks.append(
                f"left out, a repetition: {run.path} (same settings as {twin.path}, seed {seed}"
                f"{but})"
            )
        else:
            group[number, seed] = run
    groups = [[group[key] for key in sorted(group)] for group in by_settings.values() if group]
    remarks += [remark for group in groups for remark in _remarks(group)]
    keys = list(dict.fromkeys(map(_compared_with, groups)))
    groups.sort(key=lambda g: (keys.index(_compared_with(g)), g[0].labels or 0, g[0].partition))
    return groups, remarks


def _compared_with(group: Group) -> tuple[str, str]:
    """Return dataset and network: groups of the same ones are compared with each other."""
    return group[0].config.data.name, group[0].network


def _remarks(group: Group) -> list[str]:
    """Name differences between runs that are averaged because their settings are equal."""
    name = f"{group[0].method}, {group[0].config.data.name}/{group[0].partition}"
    remarks = []
    for fact in ("commit", "device", "torch", "data.root"):
        seeds: dict[str, list[str]] = defaultdict(list)
        for run in group:
            recorded = (getattr(start, fact) for start in run.starts)
            for value in [run.root] if fact == "data.root" else dict.fromkeys(recorded):
                seeds[value].append(str(run.config.seed))
        if len(seeds) > 1:
            parts = "; ".join(f"{value} (seed {', '.join(s)})" for value, s in seeds.items())
            remarks.append(f"{name}: runs of different {fact}s: {parts}")
    remarks += [f"{run.path}: {run.forced}" for run in group if run.forced]
    if absent := [text for run in group if (text := _absent_classes(run))]:
        remarks.append(
            f"{name}: a class neither in the masks nor in the predictions counts as IoU 0: "
            + "; ".join(absent)
        )
    return remarks


def _absent_classes(run: Run) -> str:
    """Describe the absent classes of the best mIoU; "" without any."""
    for network in run.networks:
        scores = run.scores(network, best_epoch(run.curve(network, "miou")))
        if scores.absent:
            return (
                f"{run.path} ({counted(scores.absent, 'class', 'classes')}; mIoU "
                f"{scores.miou:.1f}, of the classes present {scores.miou_present:.1f})"
            )
    return ""


def tabulate(groups: Sequence[Group], score: str) -> pd.DataFrame:
    """Return the table of groups (see above); raises `UserError` for an unknown score."""
    rows = []
    for index, group in enumerate(groups):
        unusual_images = _unusual_images(group, groups)
        labelled = [unusual_images.pop(k) for k in ("folds", "labeled") if k in unusual_images]
        partition = group[0].partition
        if labelled:
            partition += f" ({', '.join(labelled)})"
        images = [f"{kind}={text}" for kind, text in unusual_images.items()]
        settings = " ".join(filter(None, [_unusual_settings(group, groups), *images]))
        for network in dict.fromkeys(network for run in group for network in run.networks):
            names = {"group": index, "partition": partition, "settings": settings}
            rows.append(_row([r for r in group if network in r.networks], network, score) | names)
    counts = dict.fromkeys(("labels", "unlabeled", "peak_memory"), "Int64")
    return pd.DataFrame(rows).astype(counts)


def _row(group: Group, network: str, score: str) -> dict[str, Any]:
    """Return the row of a network, with `None` for the partition and settings, which are named by
    comparison with other groups."""
    run, curves = group[0], [run.curve(network, score) for run in group]
    steps = [run.epochs[-1].steps for run in group]
    best_epochs = [best_epoch(curve) for curve in curves]
    best = [curve[epoch] for curve, epoch in zip(curves, best_epochs, strict=True)]
    last = [curve[max(curve)] for curve in curves]
    epochs = [epoch for run in group for epoch in run.epochs]
    seconds = [e.step_seconds for e in epochs if e.step_seconds is not None]
    quality = [run.pseudo_labels() for run in group]
    return {
        "method": run.method,
        "network": run.network,
        "dataset": run.config.data.name,
        "partition": None,
        "labels": run.labels,
        "run_labels": [run.labels for run in group if run.labels is not None],
        "settings": None,
        "scored": ROLES.get(network, network) if len(run.networks) > 1 else "",
        "seeds": [run.config.seed for run in group],
        "best_epochs": best_epochs,
        "epochs": run.config.epochs,
        "steps": steps[0],
        "run_steps": steps,
        "step_seconds": median(seconds) if seconds else None,
        "peak_memory": max((e.peak_memory for e in epochs if e.peak_memory), default=None),
        "commit": ", ".join(dict.fromkeys(start.commit for run in group for start in run.starts)),
        "unlabeled": run.count("unlabeled"),
        "published": None,
        "best_mean": mean(best),
        "best_std": stdev(best) if len(best) > 1 else None,
        "best_values": best,
        "last_mean": mean(last),
        "last_std": stdev(last) if len(last) > 1 else None,
        "last_values": last,
        "curves": curves,
        "classes": run.config.data.classes,
        "class_scores": [
            run.class_scores(network, score, epoch)
            for run, epoch in zip(group, best_epochs, strict=True)
        ],
        "pseudo_labels": [by_epoch if network == name else {} for name, by_epoch in quality],
    }


def _unusual_images(group: Group, groups: Sequence[Group]) -> dict[str, str]:
    """Return a text by kind of images, for the kinds that differ between groups.

    Compared are groups of the same dataset and partition. Validation and unlabelled images are
    unusual if most groups with the same labelled images have other ones. The text is a hash, or the
    number of unlabelled images where it tells the groups apart.
    """
    run = group[0]
    key = run.config.data.name, run.partition
    alike = [other for other, *_ in groups if (other.config.data.name, other.partition) == key]
    unusual = {}
    for kind, text in run.identity.items():
        others = alike
        if kind == "unlabeled":  # without methods that use none
            others = [other for other in alike if other.identity[kind]]
        texts = Counter(other.identity.get(kind, "") for other in others)
        is_of_partition = kind in ("folds", "labeled")
        is_usual = len(texts) == 1 if is_of_partition else 2 * texts[text] > len(others)
        if text and not is_usual:
            counts = {other.count(kind) for other in others} - {None}
            is_clear = kind == "unlabeled" and len(counts) == len(texts)
            unusual[kind] = str(run.count(kind)) if is_clear else text
        if is_of_partition:
            alike = [other for other in alike if other.identity.get(kind) == text]
    return unusual


def _unusual_settings(group: Group, groups: Sequence[Group]) -> str:
    """Name the settings that differ from those of most groups of the same dataset and network."""
    run = group[0]
    alike = [other[0] for other in groups if _compared_with(other) == _compared_with(group)]
    parts = []
    for key, value in run.settings.items():
        # No options of a method: unusual only beside groups of the same method.
        others = [other for other in alike if value != {} or other.method == run.method]
        counts = Counter(repr(other.settings.get(key)) for other in others)
        common, count = counts.most_common(1)[0]
        has_usual = 2 * count > len(others)
        is_usual = has_usual and common == repr(value)
        is_shown = has_usual or value not in (None, {})  # most groups have a value
        if not is_usual and is_shown and key not in NETWORK:
            parts.append(f"{key}={value}".replace(" ", "").replace("'", ""))
    return " ".join(parts)
