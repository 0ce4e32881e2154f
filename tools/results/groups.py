"""Group runs that differ in nothing but seed and fold; tabulate mean and standard deviation.

A table of runs is a DataFrame with a row for each group and scored network:

method, network, dataset, partition, settings, commit: text; `settings` names those that most groups
    of the same dataset and network have otherwise
scored: student or teacher, where a method has both
labels, unlabeled, epochs, steps: numbers of images, epochs and optimizer steps
seeds, best_epochs, best_values, last_values: lists, by seed
best_mean, best_std, last_mean, last_std: of the best and the last score; no std for one seed
step_seconds, peak_memory: median over all epochs and seeds; maximum, in bytes
published: the score of a paper, where `tools.results.published` knows one
curves: for each seed, score by epoch
classes: class names
pseudo_labels: for each seed, the quality of the pseudo-labels by epoch (`PseudoLabels`); empty for
    a network that labels nothing
group: index of the group
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean, median, stdev
from typing import Any

import pandas as pd

from tools.results.runs import Run, best_epoch
from util.config.differences import MOVABLE

Group = list[Run]
"""Finished runs of one method and the same settings, by fold and seed."""
APART = {"seed", "data.name", "data.labeled", "data.unlabeled", "data.val"}
"""Keys that are not compared as settings: those with a column of their own, and split files."""
NETWORK = {"model.network", "model.backbone"}
NOT_SHOWN = ["group", "curves", "classes", "pseudo_labels"]
"""Columns of the table for plots alone."""
ROLES = {"model": "student", "model_ema": "teacher"}


def group_runs(runs: Iterable[Run]) -> tuple[list[Group], list[str]]:
    """Return groups by dataset, network and number of labels, and remarks on runs left out."""
    groups: dict[tuple[str, ...], dict[tuple[str, int], Run]] = {}
    remarks = []
    for run in runs:
        if not run.is_finished:
            often = f", started {len(run.starts)} times" if len(run.starts) > 1 else ""
            remarks.append(f"left out, unfinished: {run.path} ({run.progress}{often})")
            continue
        if not all(run.curve(network, "miou") for network in run.networks or [""]):
            remarks.append(f"left out, never validated in the config's mode: {run.path}")
            continue
        place = (run.method, run.config.data.name, run.partition, *identity(run))
        group = groups.setdefault((*place, repr(sorted(settings_of(run).items()))), {})
        seed = run.config.seed
        if twin := group.get((run.fold, seed)):
            remarks.append(
                f"left out, the same run again: {run.path} (as {twin.path}, seed {seed})"
            )
            continue
        group[run.fold, seed] = run
    by_seed = [[group[key] for key in sorted(group)] for group in groups.values()]
    remarks += [remark for group in by_seed for remark in _remarks(group)]
    sheets = list(dict.fromkeys(_sheet(group) for group in by_seed))
    by_seed.sort(key=lambda g: (sheets.index(_sheet(g)), g[0].labels or 0, g[0].partition))
    return by_seed, remarks


def _sheet(group: Group) -> tuple[str, str]:
    """Dataset and network, whose groups are compared with each other."""
    return group[0].config.data.name, group[0].network


def settings_of(run: Run) -> dict[str, Any]:
    """Return a run's settings by dotted key, without those that may differ between equal runs."""
    flat = _flatten(run.config.model_dump(mode="json"))
    return {key: value for key, value in flat.items() if key not in APART}


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = prefix + name
        if key in MOVABLE or name == "root":
            continue
        flat |= _flatten(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
    return flat


def identity(run: Run) -> list[str]:
    """Return what tells a run's labelled and validation images from others of the same name."""
    if run.folds is not None:  # its own are those of all folds
        return [str(run.folds)]
    data = run.config.data
    paths = {"labeled": data.labeled, "val": data.val}
    return [run.images[k].sha256 if k in run.images else str(path) for k, path in paths.items()]


def _remarks(group: Group) -> list[str]:
    """Name differences between runs that are averaged, although their settings are equal."""
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
    """Return the table of groups (see above); raises `UserError` for a score that they lack."""
    of_group = enumerate(
        zip(groups, _partition_names(groups), _unusual_settings(groups), strict=True)
    )
    runs = pd.DataFrame(
        {"row": f"{index} {network}", "group": index}
        | _record(run, network, score)
        | {"partition": partition, "settings": settings}
        for index, (group, partition, settings) in of_group
        for run in group
        for network in run.networks
    )
    lists = ("seeds", "best_epochs", "best_values", "last_values", "curves", "pseudo_labels")
    table = runs.groupby("row", sort=False).agg(
        dict.fromkeys(runs.columns[1:], "first")
        | dict.fromkeys(lists, list)
        | {
            "step_seconds": lambda of_runs: median(sum(of_runs, [])) if any(of_runs) else None,
            "peak_memory": "max",
            "commit": lambda of_runs: ", ".join(dict.fromkeys(sum(of_runs, []))),
        }
    )
    for epoch in ("best", "last"):
        values = table.pop(f"{epoch}_values")
        table[f"{epoch}_mean"] = values.map(mean)
        # Of the sample, with all digits: pandas rounds differently.
        table[f"{epoch}_std"] = values.map(lambda v: stdev(v) if len(v) > 1 else None)
        table[f"{epoch}_values"] = values
    counts = dict.fromkeys(("labels", "unlabeled", "peak_memory"), "Int64")
    return table.reset_index(drop=True).astype(counts)


def _record(run: Run, network: str, score: str) -> dict[str, Any]:
    """A run's scored network; partition and settings are named by comparison with other groups."""
    curve = run.curve(network, score)
    best = best_epoch(curve)
    labeler, qualities = run.pseudo_labels()
    memory = [epoch.peak_memory for epoch in run.epochs if epoch.peak_memory is not None]
    return {
        "method": run.method,
        "network": run.network,
        "dataset": run.config.data.name,
        "partition": None,
        "labels": run.labels,
        "settings": None,
        "scored": ROLES.get(network, network) if len(run.networks) > 1 else "",
        "seeds": run.config.seed,
        "best_epochs": best,
        "epochs": run.config.epochs,
        "steps": run.epochs[-1].steps,
        "step_seconds": [e.step_seconds for e in run.epochs if e.step_seconds is not None],
        "peak_memory": max(memory, default=None),
        "commit": run.commits,
        "unlabeled": run.images["unlabeled"].images if run.images else None,
        "published": None,
        "best_values": curve[best],
        "last_values": curve[max(curve)],
        "curves": curve,
        "classes": run.config.data.classes,
        "pseudo_labels": qualities if network == labeler else {},
    }


def _unusual_settings(groups: Sequence[Group]) -> list[str]:
    """For each group, the settings that most groups of its dataset and network have otherwise."""
    texts, known = [], [(_sheet(group), settings_of(group[0])) for group in groups]
    for sheet, settings in known:
        alike = [others for other_sheet, others in known if other_sheet == sheet]
        parts = []
        for key, value in settings.items():
            common, count = Counter(repr(other.get(key)) for other in alike).most_common(1)[0]
            usual = common == repr(value) and 2 * count > len(alike)
            if not usual and key not in NETWORK and value not in (None, {}):
                parts.append(f"{key}={value}".replace(" ", "").replace("'", ""))
        texts.append(" ".join(parts))
    return texts


def _partition_names(groups: Sequence[Group]) -> list[str]:
    """For each group; partitions that share a name but not their images also get their hash."""
    hashes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run, *_ in groups:
        hashes[run.config.data.name, run.partition].add(identity(run)[0])
    return [
        f"{run.partition} ({identity(run)[0][:8]})"
        if len(hashes[run.config.data.name, run.partition]) > 1
        else run.partition
        for run, *_ in groups
    ]
