"""Runs that differ in nothing but seed and fold, as one row: mean and standard deviation."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import mean, median, stdev
from typing import Any, NamedTuple

from tools.results.runs import Run, best_epoch
from util.config.loading import MOVABLE

APART = {"seed", "data.name", "data.labeled", "data.unlabeled", "data.val"}
"""Keys that are no settings of a group: what a column of its own says, and the paths of lists."""
NETWORK = {"model.network", "model.backbone"}
ROLES = {"model": "student", "model_ema": "teacher"}


class Group(NamedTuple):
    """Finished runs of one method and the same settings, by seed."""

    settings: dict[str, Any]
    """All of them, by dotted key."""
    runs: list[Run]

    @property
    def first(self) -> Run:
        return self.runs[0]


class Spread(NamedTuple):
    """A number measured with several seeds."""

    values: list[float]

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def std(self) -> float | None:
        """Of the sample; None for one seed, of which nothing is known."""
        return stdev(self.values) if len(self.values) > 1 else None


class Row(NamedTuple):
    """A group's scored network: what a line of a table says."""

    method: str
    network: str
    dataset: str
    partition: str
    labels: int | None
    settings: str
    """Those that most groups of this dataset and network have otherwise."""
    scored: str
    """student or teacher where a method has both."""
    seeds: list[int]
    best: Spread
    best_epochs: list[int]
    last: Spread
    epochs: int
    steps: int
    step_seconds: float | None
    """Median over all epochs and seeds."""
    peak_memory: int | None
    """Bytes."""
    commit: str
    curves: list[dict[int, float]]
    """Score by epoch, for each seed."""
    unlabeled: int | None = None
    published: float | None = None

    @property
    def gibibytes(self) -> float | None:
        return None if self.peak_memory is None else self.peak_memory / 2**30


def group_runs(runs: Iterable[Run]) -> tuple[list[Group], list[str]]:
    """Groups by dataset, network and number of labels, and remarks on what they leave out."""
    groups: dict[tuple[Any, ...], Group] = {}
    remarks = []
    for run in runs:
        if not run.is_finished:
            often = f", started {len(run.starts)} times" if len(run.starts) > 1 else ""
            remarks.append(f"left out, unfinished: {run.path} ({run.progress}{often})")
            continue
        if not all(run.curve(network, "miou") for network in run.networks or [""]):
            remarks.append(f"left out, never validated in the config's mode: {run.path}")
            continue
        settings = settings_of(run)
        place = (run.method, run.config.data.name, run.partition, *identity(run))
        key = (*place, *((name, repr(value)) for name, value in sorted(settings.items())))
        group = groups.setdefault(key, Group(settings, []))
        seed = run.config.seed
        same = (r for r in group.runs if (r.config.seed, r.fold) == (seed, run.fold))
        if twin := next(same, None):
            remarks.append(
                f"left out, the same run again: {run.path} (as {twin.path}, seed {seed})"
            )
            continue
        group.runs.append(run)
    for group in groups.values():
        group.runs.sort(key=lambda run: (run.fold, run.config.seed))
        remarks += _remarks(group)
    return sorted(groups.values(), key=_place_of(groups.values())), remarks


def _place_of(groups: Iterable[Group]) -> Callable[[Group], tuple[int, int, str]]:
    """Datasets and networks in their order, partitions by labels; methods stay as they came."""
    sheets = list(dict.fromkeys((g.first.config.data.name, g.first.network) for g in groups))

    def place(group: Group) -> tuple[int, int, str]:
        run = group.first
        sheet = sheets.index((run.config.data.name, run.network))
        return sheet, run.labels or 0, run.partition

    return place


def settings_of(run: Run) -> dict[str, Any]:
    """A run's settings by dotted key, without what may differ between equal runs."""
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
    """What tells its labelled and validation images from others of the same name."""
    if run.folds is not None:  # its own are those of all folds
        return [str(run.folds)]
    data = run.config.data
    paths = {"labeled": data.labeled, "val": data.val}
    return [run.images[k].sha256 if k in run.images else str(path) for k, path in paths.items()]


def _remarks(group: Group) -> list[str]:
    """What differs between runs that are averaged, although no setting does."""
    name = f"{group.first.method}, {group.first.config.data.name}/{group.first.partition}"
    found = []
    for what in ("commit", "device", "torch"):
        kinds: dict[str, list[str]] = defaultdict(list)
        for run in group.runs:
            for value in dict.fromkeys(getattr(start, what) for start in run.starts):
                kinds[value].append(str(run.config.seed))
        if len(kinds) > 1:
            parts = "; ".join(f"{kind} (seed {', '.join(s)})" for kind, s in kinds.items())
            found.append(f"{name}: runs of different {what}s: {parts}")
    for run in group.runs:
        if any("--force" in start.command for start in run.starts):
            found.append(f"{run.path}: resumed with --force, so its config may have changed midway")
    return found


def rows_of(groups: Sequence[Group], score: str) -> list[Row]:
    """A row for each network that a group's validations scored; raises `UserError`."""
    shown = _shown_settings(groups)
    names = _partition_names(groups)
    return [
        _row(group, network, score, names[index], shown[index])
        for index, group in enumerate(groups)
        for network in group.first.networks
    ]


def _row(group: Group, network: str, score: str, partition: str, settings: str) -> Row:
    first = group.first
    curves = [run.curve(network, score) for run in group.runs]
    best = [best_epoch(curve) for curve in curves]
    steps = [e.step_seconds for run in group.runs for e in run.epochs if e.step_seconds is not None]
    memory = [e.peak_memory for run in group.runs for e in run.epochs if e.peak_memory is not None]
    several = len(first.networks) > 1
    return Row(
        method=first.method,
        network=first.network,
        dataset=first.config.data.name,
        partition=partition,
        labels=first.labels,
        settings=settings,
        scored=ROLES.get(network, network) if several else "",
        seeds=[run.config.seed for run in group.runs],
        best=Spread([curve[epoch] for curve, epoch in zip(curves, best, strict=True)]),
        best_epochs=best,
        last=Spread([curve[max(curve)] for curve in curves]),
        epochs=first.config.epochs,
        steps=first.epochs[-1].steps,
        step_seconds=median(steps) if steps else None,
        peak_memory=max(memory, default=None),
        commit=", ".join(dict.fromkeys(c for run in group.runs for c in run.commits)),
        curves=curves,
        unlabeled=first.images["unlabeled"].images if first.images else None,
    )


def _shown_settings(groups: Sequence[Group]) -> list[str]:
    """Of each group, the settings that most groups of its dataset and network have otherwise."""
    alike: dict[tuple[str, str], list[Group]] = defaultdict(list)
    for group in groups:
        alike[group.first.config.data.name, group.first.network].append(group)
    texts = []
    for group in groups:
        others = alike[group.first.config.data.name, group.first.network]
        parts = []
        for key, value in group.settings.items():
            common, count = Counter(repr(o.settings.get(key)) for o in others).most_common(1)[0]
            usual = common == repr(value) and 2 * count > len(others)
            if not usual and key not in NETWORK and value not in (None, {}):
                parts.append(f"{key}={_brief(value)}")
        texts.append(" ".join(parts))
    return texts


def _brief(value: Any) -> str:
    return str(value).replace(" ", "").replace("'", "")


def _partition_names(groups: Sequence[Group]) -> list[str]:
    """Of each group; of partitions that share a name but not their images, with their hash."""
    kinds: dict[tuple[str, str], set[str]] = defaultdict(set)
    for group in groups:
        run = group.first
        kinds[run.config.data.name, run.partition].add(identity(run)[0])
    return [
        f"{run.partition} ({identity(run)[0][:8]})"
        if len(kinds[run.config.data.name, run.partition]) > 1
        else run.partition
        for run in (group.first for group in groups)
    ]
