"""Group runs that differ in seed or fold only; tabulate mean and standard deviation.

A table of runs is a DataFrame with a row for each group and scored network:

method, network, dataset, partition, settings, commit: text; `settings` names those that differ from
    the settings of most groups of the same dataset and network
scored: student or teacher, where a method has both
labels, unlabeled, epochs, steps: numbers of images, epochs and optimizer steps
seeds, best_epochs, best_values, last_values: lists, by seed
best_mean, best_std, last_mean, last_std: of the best and the last score; no std for one seed
step_seconds, peak_memory: median over all epochs and seeds; maximum, in bytes
published: the score of a paper, where `tools.results.published` knows one
curves: for each seed, score by epoch
classes: class names
pseudo_labels: for each seed, the quality of the pseudo-labels by epoch (`PseudoLabels`); empty for
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
NOT_SHOWN = ["group", "curves", "classes", "pseudo_labels"]
"""Columns of the table that only plots use."""
ROLES = {"model": "student", "model_ema": "teacher"}


def group_runs(runs: Iterable[Run]) -> tuple[list[Group], list[str]]:
    """Return groups by dataset, network and number of labels, and remarks on runs left out."""
    found: dict[tuple[object, ...], dict[tuple[Any, int], Run]] = defaultdict(dict)
    remarks = []
    for run in runs:
        seed, settings = run.config.seed, repr(sorted(run.settings.items()))
        group = found[run.method, run.config.data.name, run.partition, run.identity, settings]
        if not run.is_finished:
            often = f", started {len(run.starts)} times" if len(run.starts) > 1 else ""
            remarks.append(f"left out, unfinished: {run.path} ({run.progress}{often})")
        elif not all(run.curve(network, "miou") for network in run.networks or [""]):
            remarks.append(f"left out, never validated in the config's mode: {run.path}")
        elif twin := group.get((run.fold, seed)):
            remarks.append(
                f"left out, a repetition: {run.path} (same settings as {twin.path}, seed {seed})"
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
    for what in ("commit", "device", "torch"):
        seeds: dict[str, list[str]] = defaultdict(list)
        for run in group:
            for value in dict.fromkeys(getattr(start, what) for start in run.starts):
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
    hashes = defaultdict(set)
    for run, *_ in groups:
        hashes[run.config.data.name, run.partition].add(run.identity[0])
    rows = []
    for index, group in enumerate(groups):
        run, settings = group[0], _unusual_settings(group, groups)
        is_ambiguous = len(hashes[run.config.data.name, run.partition]) > 1
        partition = run.partition + f" ({run.identity[0][:8]})" * is_ambiguous
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
        "unlabeled": run.images["unlabeled"].images if run.images else None,
        "published": None,
        "best_mean": mean(best),
        "best_std": stdev(best) if len(best) > 1 else None,
        "best_values": best,
        "last_mean": mean(last),
        "last_std": stdev(last) if len(last) > 1 else None,
        "last_values": last,
        "curves": curves,
        "classes": run.config.data.classes,
        "pseudo_labels": [found if network == labeler else {} for labeler, found in labels],
    }


def _unusual_settings(group: Group, groups: Sequence[Group]) -> str:
    """Settings that differ from those of most groups of the same dataset and network."""
    alike = [other[0].settings for other in groups if _sheet(other) == _sheet(group)]
    parts = []
    for key, value in group[0].settings.items():
        common, count = Counter(repr(other.get(key)) for other in alike).most_common(1)[0]
        is_usual = common == repr(value) and 2 * count > len(alike)
        if not is_usual and key not in NETWORK and value not in (None, {}):
            parts.append(f"{key}={value}".replace(" ", "").replace("'", ""))
    return " ".join(parts)
