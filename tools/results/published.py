"""Compare published scores with runs."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field

from dataset.cross_validation import split_file
from dataset.protocols import PREPARED, read_protocols
from tools.results.groups import Group
from tools.results.runs import Run
from util.config.types import Section
from util.errors import UserError

SCORES = Path(__file__).with_name("published.yaml")


class Published(Section):
    """One published score."""

    method: str
    dataset: str
    backbone: str
    crop: int | None = None
    """Set where the dataset has published scores for several crop sizes."""
    network: str | None = None
    """Set where the dataset has published scores for several networks with this backbone."""
    source: str
    score: str = "miou"
    """Name of the score, as for --score."""
    chosen_on: Literal["test", "valtest"] | None = None
    """Split on which the published epoch was chosen, where that is not the validation split."""
    partition: str
    value: Annotated[float, Field(gt=0, lt=100)]

    @property
    def name(self) -> str:
        """Dataset and partition."""
        return f"{self.dataset}/{self.partition}"

    def is_of(self, group: Group) -> bool:
        """Return True if a group has the published method, network, partition and crop size."""
        run = group[0]
        return (
            (run.method, run.dataset) == (self.method, self.dataset)
            and (run.backbone, run.partition) == (self.backbone, self.partition)
            and self.crop in (None, run.config.crop_size)
            and self.network in (None, run.config.model.network)
        )


def read_published() -> list[Published]:
    """Return all scores of published.yaml, where an entry has `values` by partition."""
    return [
        Published(**entry | {"partition": partition, "value": value})
        for entry in yaml.safe_load(SCORES.read_text(encoding="utf-8"))
        for partition, value in entry.pop("values").items()
    ]


def select(targets: Sequence[str], score: str = "miou") -> list[Published]:
    """Return the published scores of datasets (`pascal`) and partitions (`pascal/92`).

    Raises `UserError` for a dataset or partition without published scores of this kind.
    """
    scores = [one for one in read_published() if one.score == score] if targets else []
    selected: list[Published] = []
    for target in targets:
        matching = [one for one in scores if target in (one.name, one.dataset)]
        if not matching:
            names = ", ".join(dict.fromkeys(one.name for one in scores)) or "none"
            raise UserError(f"--published {target}: no published {score}; expected one of: {names}")
        selected += [one for one in matching if one not in selected]
    return selected


def remarks_on(groups: Sequence[Group], published: Sequence[Published]) -> list[str]:
    """Name groups that cannot be compared with published scores: with other labelled images under
    the name of a published partition, with other validation images, or with the best epoch chosen
    on another split."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for protocol in (p for p in read_protocols() if p.dataset not in PREPARED):
        hashes[f"{protocol.dataset}/{protocol.name}"].add(protocol.fingerprint.sha256)
    other_images, other_choice = [], []

    def has_other_images(run: Run, kind: str, name: str) -> bool:
        own = run.identities.get(kind)
        return own is not None and name in hashes and own.sha256 not in hashes[name]

    for group in groups:
        run = group[0]
        name = f"{run.dataset}/{run.partition}"
        if has_other_images(run, "labeled", f"{name}/labeled"):
            other_images.append(
                f"{run.path}: its labelled images are not those published as {name}"
            )
        path = split_file(run.config.data, "val")
        val = path.stem if path else "other images"
        for score in (one for one in published if one.is_of(group)):
            name = f"{score.dataset}/{score.chosen_on or 'val'}"
            if score.chosen_on not in (None, val):
                other_choice.append(
                    f"{run.path}: its best epoch was chosen on {val}, but the published "
                    f"{score.value} on {score.chosen_on}, which raises a score"
                )
            elif has_other_images(run, "val", name):
                other_images.append(
                    f"{run.path}: its validation images are not those published as {name}"
                )
    return [*dict.fromkeys(other_images), *other_choice]
