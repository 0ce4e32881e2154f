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
published: the paper's score that `--published` names; where a method has a student and a teacher,
    in the row of the network that makes the pseudo-labels
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
    by_settings: dict[tuple[str, ...], dict[tuple[int, int], Run]] = defaultdict(dict)
    remarks = []
    for run in runs:
        settings = repr([*run.images.items(), *sorted(run.settings.items())])
        group = by_settings[run.method, run.dataset, run.partition, settings]
        seed = run.config.seed
        key = int(run.fold.name.removeprefix("fold_")) if run.fold else 0, seed
        if not run.is_finished:
            starts = f", started {len(run.starts)} times" if len(run.starts) > 1 else ""
            remarks.append(f"left out, unfinished: {run.path} ({run.progress}{starts})")
        elif not all(map(run.validations, run.networks or [""])):
            remarks.append(f"left out, never validated in the config's mode: {run.path}")
        elif twin := group.get(key):
            but = ""
            if run.root != twin.root:
                but = f", but data.root {run.root} instead of {twin.root}"
            if run.identities != twin.identities:
                but += ", but other images"
            remarks.append(
                f"left out, a repetition: {run.path} (same settings as {twin.path}, seed {seed}"
                f"{but})"
            )
        else:
            group[key] = run
    groups = [[group[key] for key in sorted(group)] for group in by_settings.values() if group]
    remarks += [remark for group in groups for remark in _remarks(group)]
    comparisons = list(dict.fromkeys(_comparison(run) for run, *_ in groups))
    groups.sort(
        key=lambda g: (comparisons.index(_comparison(g[0])), g[0].labels or 0, g[0].partition)
    )
    return groups, remarks


def _comparison(run: Run) -> tuple[str, str]:
    """Return dataset and network: groups of the same ones are compared with each other."""
    return run.dataset, run.network


def _remarks(group: Group) -> list[str]:
    """Name differences between runs that are averaged because their settings are equal."""
    name = f"{group[0].method}, {group[0].dataset}/{group[0].partition}"
    remarks = []
    for fact in ("commit", "device", "torch", "data.root"):
        seeds: dict[str, list[str]] = defaultdict(list)
        for run in group:
            recorded = [run.root] if fact == "data.root" else [getattr(s, fact) for s in run.starts]
            for value in dict.fromkeys(recorded):
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
        scores = run.validations(network)[best_epoch(run.curve(network, "miou"))]
        if scores.absent:
            return (
                f"{run.path} ({counted(scores.absent, 'class', 'classes')}; mIoU "
                f"{scores.miou:.1f}, of the classes present {scores.miou_present:.1f})"
            )
    return ""


def has_score(group: Group, score: str) -> bool:
    """Return True if all networks of all runs have a score."""
    return all(run.curve(network, score) for run in group for network in run.networks)


def tabulate(groups: Sequence[Group], score: str) -> pd.DataFrame:
    """Return the table of groups (see above), whose runs have the score."""
    firsts = [group[0] for group in groups]
    rows = [
        _row([run for run in group if network in run.networks], network, score)
        | {"group": index}
        | _names(group[0], firsts)
        for index, group in enumerate(groups)
        for network in dict.fromkeys(network for run in group for network in run.networks)
    ]
    counts = dict.fromkeys(("labels", "unlabeled", "peak_memory"), "Int64")
    return pd.DataFrame(rows).astype(counts)


def _row(group: Group, network: str, score: str) -> dict[str, Any]:
    """Return the row of a network, with `None` for the partition and settings, see `_names`."""
    run, curves = group[0], [run.curve(network, score) for run in group]
    steps = [run.steps_done for run in group]
    best_epochs = [best_epoch(curve) for curve in curves]
    best = [curve[epoch] for curve, epoch in zip(curves, best_epochs, strict=True)]
    last = [curve[max(curve)] for curve in curves]
    seconds = [seconds for run in group for seconds in run.step_seconds]
    validations = [r.validations(network)[e] for r, e in zip(group, best_epochs, strict=True)]
    return {
        "method": run.method,
        "network": run.network,
        "dataset": run.dataset,
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
        "peak_memory": max((run.peak_memory for run in group if run.peak_memory), default=None),
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
        "class_scores": [(v.dice if score == "dice" else None) or v.iou for v in validations],
        "pseudo_labels": [run.pseudo_labels(network) for run in group],
    }


def _names(run: Run, runs: Sequence[Run]) -> dict[str, str]:
    """Name the partition and the settings of a group; `run`, `runs`: the first run of the group and
    of all groups."""
    unusual = _unusual_settings(run, runs) | _unusual_images(run, runs)
    labeled = unusual.pop("labeled", "")
    settings = (
        f"{key}={value}".replace(" ", "").replace("'", "") for key, value in unusual.items()
    )
    return {
        "partition": run.partition + (f" ({labeled})" if labeled else ""),
        "settings": " ".join(settings),
    }


def _unusual_settings(run: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """Return the settings that differ from those of most groups of the same dataset and network."""
    peers = [other for other in runs if _comparison(other) == _comparison(run)]
    unusual = {}
    for key in dict.fromkeys(key for peer in peers for key in peer.settings if key not in NETWORK):
        if key.startswith("method."):  # where absent, the default, or another method's option
            others = [peer for peer in peers if key in run.settings or peer.method == run.method]
        elif key in run.settings:
            others = [peer for peer in peers if key in peer.settings]
        else:  # not used by SupOnly
            continue
        usual = _usual(repr(other.settings.get(key)) for other in others)
        if repr(value := run.settings.get(key)) != (usual or "None"):
            unusual[key] = value
    return unusual


def _unusual_images(run: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """Return a hash by kind of images, for the kinds that differ between groups of the same dataset
    and partition.

    Labelled images are unusual if a group has other ones; validation and unlabelled images, if most
    groups with the same labelled images have other ones. Their number stands for the hash where it
    tells the groups apart.
    """
    key, labeled = (run.dataset, run.partition), run.images["labeled"]
    peers = [other for other in runs if (other.dataset, other.partition) == key]
    alike = [peer for peer in peers if peer.images["labeled"] == labeled]
    unusual: dict[str, Any] = {"labeled": labeled} if len(alike) < len(peers) else {}
    for kind in ("val", "unlabeled"):
        others = [other for other in alike if other.images[kind]]  # "": not used
        texts, text = [other.images[kind] for other in others], run.images[kind]
        if text and text != _usual(texts):
            counts = {other.count(kind) for other in others} - {None}
            unusual[kind] = run.count(kind) if len(counts) == len({*texts}) else text
    return unusual


def _usual(values: Iterable[str]) -> str | None:
    """Return the value that more than half of the values have, if there is one."""
    counts = Counter(values)
    return next((value for value, count in counts.items() if 2 * count > counts.total()), None)
