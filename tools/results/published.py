"""Compare published scores with runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import pandas as pd
import yaml
from pydantic import Field

from dataset.protocols import PREPARED, read_protocols
from tools.results.groups import Group
from util.config.types import Section
from util.errors import UserError

SCORES = Path(__file__).with_name("published.yaml")


class Entry(Section):
    """A line of a paper's table."""

    method: str
    dataset: str
    backbone: str
    crop: int | None = None
    """Set where the dataset has published scores for several crop sizes."""
    network: str | None = None
    """Set where the dataset has published scores for several networks with this backbone."""
    source: str
    score: str = "miou"
    """The published score, named as for --score: dice is the mean over volumes, a class its IoU."""
    chosen_on: Literal["test", "valtest"] | None = None
    """The split that chose the published epoch, where that is not the validation split."""
    values: dict[str, Annotated[float, Field(gt=0, lt=100)]]
    """By partition."""

    @property
    def title(self) -> str:
        """Network (if several were published) and backbone."""
        return " ".join(filter(None, [self.network, self.backbone]))


class Published(NamedTuple):
    """One published score."""

    entry: Entry
    partition: str

    @property
    def value(self) -> float:
        return self.entry.values[self.partition]

    @property
    def name(self) -> str:
        return f"{self.entry.dataset}/{self.partition}"

    def is_of(self, group: Group) -> bool:
        """Check that a group has the published method, network, partition and crop size."""
        run, entry = group[0], self.entry
        own = (run.method, run.config.data.name, run.backbone, run.partition)
        return (
            own == (entry.method, entry.dataset, entry.backbone, self.partition)
            and entry.crop in (None, run.config.crop_size)
            and entry.network in (None, run.config.model.network)
        )


def select(targets: Sequence[str], score: str = "miou") -> list[Published]:
    """Return the published scores of datasets (`pascal`) and partitions (`pascal/92`).

    Raises `UserError` for a dataset or partition without published scores of this kind.
    """
    entries = [entry for entry in read_entries() if entry.score == score]
    known = [Published(entry, name) for entry in entries for name in entry.values]
    found: list[Published] = []
    for target in targets:
        some = [one for one in known if target in (one.name, one.entry.dataset)]
        if not some:
            names = ", ".join(dict.fromkeys(one.name for one in known)) or "none"
            raise UserError(f"--published {target}: no {score} in {SCORES.name}; known: {names}")
        found += [one for one in some if one not in found]
    return found


def read_entries() -> list[Entry]:
    return [Entry.model_validate(e) for e in yaml.safe_load(SCORES.read_text(encoding="utf-8"))]


def beside(
    table: pd.DataFrame, groups: Sequence[Group], published: Sequence[Published]
) -> list[Published]:
    """Fill the table's published scores; returns those that no run stands beside."""
    of_group = [next((p for p in published if p.is_of(group)), None) for group in groups]
    table["published"] = [p.value if (p := of_group[index]) else None for index in table.group]
    return [score for score in published if score not in of_group]


def chosen_elsewhere(groups: Sequence[Group], published: Sequence[Published]) -> list[str]:
    """Remark on groups whose best epoch and published score were chosen on different splits."""
    return [
        f"{run.path}: its best epoch was chosen on {run.val_list or 'other images'}, that of the "
        f"published {score.value} on {score.entry.chosen_on}, which raises a score"
        for run, score in ((g[0], p) for g in groups for p in published if p.is_of(g))
        if score.entry.chosen_on not in (None, run.val_list)
    ]


def foreign_lists(groups: Sequence[Group]) -> list[str]:
    """Remark on groups whose partition has a published name, but other labelled images."""
    hashes: dict[str, set[str]] = {}
    for protocol in (p for p in read_protocols() if p.dataset not in PREPARED):
        name = f"{protocol.dataset}/{protocol.name}"
        hashes.setdefault(name, set()).add(protocol.fingerprint.sha256)
    remarks = []
    for run, *_ in groups:
        name = f"{run.config.data.name}/{run.partition}"
        known = hashes.get(f"{name}/labeled")
        if known and "labeled" in run.images and run.images["labeled"].sha256 not in known:
            remarks.append(f"{run.path}: its labelled images are not those published as {name}")
    return list(dict.fromkeys(remarks))
