"""Group runs that differ in seed or fold only; tabulate mean and standard deviation.

A table of runs is a DataFrame with a row for each group and scored network:

method, network, dataset, partition, settings, commit: text; `settings` names those that differ from
    the settings of most groups of the same dataset and network, and validation and unlabelled
    images that differ from those of most groups of the same partition
scored: student or teacher, where a method has both
labels, unlabeled, epochs, steps: numbers of images, epochs and optimizer steps
seeds, best_epochs, best_values, last_values: lists with an item for each run, by fold and seed
best_mean, best_std, last_mean, last_std: of the best and the last score; no std for one run
step_seconds, peak_memory: median over all epochs and runs; maximum, in bytes
published: the score of a paper, of those that `--published` names
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

Group = list[Run]
"""Finished runs of one method and the same settings, by fold and seed."""
NETWORK = {"model.network", "model.backbone"}
NOT_SHOWN = ["group", "curves", "classes", "class_scores", "pseudo_labels"]
"""Columns of the table that only plots use."""
ROLES = {"model": "student", "model_ema": "teacher"}


def group_runs(runs: Iterable[Run]) -> tuple[list[Group], list[str]]:
    """Return groups by dataset, network and number of labels, and remarks on runs left out."""
    found: dict[tuple[object, ...], dict[tuple[Any, int], Run]] = defaultdict(dict)
    remarks = []
    for run in runs:
        seed, settings = run.config.seed, repr(sorted(run.settings.items()))
        images = tuple(run.identity.items())
        group = found[run.method, run.config.data.name, run.partition, images, settings]
        if not run.is_finished:
            often = f", started {len(run.starts)} times" if len(run.starts) > 1 else ""
            remarks.append(f"left out, unfinished: {run.path} ({run.progress}{often})")
        elif not all(run.curve(network, "miou") for network in run.networks or [""]):
            remarks.append(f"left out, never validated in the config's mode: {run.path}")
        elif twin := group.get((run.fold, seed)):
            other = f", but data.root {run.root} instead of {twin.root}" * (run.root != twin.root)
            remarks.append(
                f"left out, a repetition: {run.path} (same settings as {twin.path}, seed {seed}"
                f"{other})"
            )
        else:
            group[run.fold, seed] = run
    groups = [[group[key] for key in sorted(group)] for group in found.values() if group]
    remarks += [remark for group in groups for remark in _remarks(group)]
    sheets = list(dict.fromkeys(map(_sheet, groups)))
    groups.sort(key=lambda g: (sheets.index(_sheet(g)), g[0].labels or 0, g[0].partition))
    return groups, remarks


def _sheet(group: Group) -> tuple[str, str]:
    """Dataset and network, whose groups are compared with each other."""
    return group[0].config.data.name, group[0].network


def _remarks(group: Group) -> list[str]:
    """Name differences between runs that are averaged because their settings are equal."""
    name = f"{group[0].method}, {group[0].config.data.name}/{group[0].partition}"
    found = []
    for what in ("commit", "device", "torch", "data.root"):
        seeds: dict[str, list[str]] = defaultdict(list)
        for run in group:
            of_starts = (getattr(start, what) for start in run.starts)
            for value in [run.root] if what == "data.root" else dict.fromkeys(of_starts):
                seeds[value].append(str(run.config.seed))
        if len(seeds) > 1:
            parts = "; ".join(f"{value} (seed {', '.join(s)})" for value, s in seeds.items())
            found.append(f"{name}: runs of different {what}s: {parts}")
    for run in group:
        if any("--force" in start.command for start in run.starts):
            found.append(f"{run.path}: resumed with --force, so its config may have changed midway")
    return found


def tabulate(groups: Sequence[Group], score: str) -> pd.DataFrame:
    """Return the table of groups (see above); raises `UserError` for an unknown score."""
    rows = []
    for index, group in enumerate(groups):
        run, images = group[0], _unlike_images(group, groups)
        of_partition = ", ".join(
            images.pop(kind) for kind in ("folds", "labeled") if kind in images
        )
        partition = run.partition + f" ({of_partition})" * bool(of_partition)
        parts = [_unusual_settings(group, groups), *(f"{k}={text}" for k, text in images.items())]
        settings = " ".join(filter(None, parts))
        for network in dict.fromkeys(network for run in group for network in run.networks):
            names = {"group": index, "partition": partition, "settings": settings}
            rows.append(_row([r for r in group if network in r.networks], network, score) | names)
    counts = dict.fromkeys(("labels", "unlabeled", "peak_memory"), "Int64")
    return pd.DataFrame(rows).astype(counts)


def _row(group: Group, network: str, score: str) -> dict[str, Any]:
    """Row of a network; partition and settings are named by comparison with other groups."""
    run, curves = group[0], [run.curve(network, score) for run in group]
    best_epochs = [best_epoch(curve) for curve in curves]
    best = [curve[epoch] for curve, epoch in zip(curves, best_epochs, strict=True)]
    last = [curve[max(curve)] for curve in curves]
    epochs = [epoch for run in group for epoch in run.epochs]
    seconds = [e.step_seconds for e in epochs if e.step_seconds is not None]
    labels = [run.pseudo_labels() for run in group]
    return {
        "method": run.method,
        "network": run.network,
        "dataset": run.config.data.name,
        "partition": None,
        "labels": run.labels,
        "settings": None,
        "scored": ROLES.get(network, network) if len(run.networks) > 1 else "",
        "seeds": [run.config.seed for run in group],
        "best_epochs": best_epochs,
        "epochs": run.config.epochs,
        "steps": run.epochs[-1].steps,
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
        "pseudo_labels": [found if network == labeler else {} for labeler, found in labels],
    }


def _unlike_images(group: Group, groups: Sequence[Group]) -> dict[str, str]:
    """Text by kind of images, where groups of the same dataset and partition have other ones.

    Of val and unlabeled images, where most groups with the same labelled images have other ones.
    The text is the number of unlabelled images, or a hash where that does not tell them apart.
    """
    run = group[0]
    key = run.config.data.name, run.partition
    alike = [other for other, *_ in groups if (other.config.data.name, other.partition) == key]
    found = {}
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
            found[kind] = str(run.count(kind)) if is_clear else text
        if is_of_partition:
            alike = [other for other in alike if other.identity.get(kind) == text]
    return found


def _unusual_settings(group: Group, groups: Sequence[Group]) -> str:
    """Settings that differ from those of most groups of the same dataset and network."""
    run, alike = group[0], [other[0] for other in groups if _sheet(other) == _sheet(group)]
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
