"""Published split files: names, sources and fingerprints."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import yaml

from util.errors import UserError, counted

PROTOCOLS = Path(__file__).resolve().parents[1] / "splits/protocols.yaml"
PREPARED = {"acdc"}
"""Datasets whose published lists name files that training does not read: `tools.prepare` writes
lists of the images that it converts, and compares these lists with the published ones."""


class Fingerprint(NamedTuple):
    """Identity of a list, independent of the order of its lines."""

    entries: int
    unique: int
    sha256: str

    def __str__(self) -> str:
        return f"{counted(self.entries, 'entry', 'entries')}, SHA-256 {self.sha256[:12]}"


def fingerprint(text: bytes) -> Fingerprint:
    """Return the fingerprint of the content of a list, as splits/protocols.yaml defines it."""
    lines = [line for line in text.splitlines() if line.strip()]
    unique = sorted(set(lines))
    digest = hashlib.sha256(b"".join(line + b"\n" for line in unique)).hexdigest()
    return Fingerprint(len(lines), len(unique), digest)


class PublishedSplitFile(NamedTuple):
    """A split file that one or more repositories publish."""

    dataset: str
    name: str  # such as 92/labeled or val
    path: str  # in each of the sources
    sources: tuple[str, ...]  # owner/repository on GitHub
    fingerprint: Fingerprint

    @property
    def partition(self) -> str:
        """Folder of the list; its name for a list outside partitions."""
        return self.name.split("/")[0]

    @property
    def file(self) -> Path:
        """Path below splits/."""
        return Path(self.dataset, f"{self.name}.txt")

    def __str__(self) -> str:
        return f"{self.dataset}/{self.name} of {', '.join(self.sources)}"


def read_protocols() -> list[PublishedSplitFile]:
    """Read all published lists; variants of one name are adjacent."""
    tree = yaml.safe_load(PROTOCOLS.read_text(encoding="utf-8"))
    return [
        PublishedSplitFile(
            dataset,
            name,
            v["path"],
            tuple(v["sources"]),
            Fingerprint(v["entries"], v["unique"], v["sha256"]),
        )
        for dataset, lists in tree.items()
        for name, variants in lists.items()
        for v in variants
    ]


def select_split_files(target: str, source: str | None = None) -> list[PublishedSplitFile]:
    """Return the lists of `pascal`, of `pascal/92` with its val list, or `pascal/val` alone.

    `source`: owner/repository, or the repository, that publishes them. Raises `UserError` for
    unknown names, and for a name under which repositories publish different lists.
    """
    dataset, _, partition = target.partition("/")
    lists = split_files_of(dataset)
    found = [p for p in lists if partition in ("", p.partition)]
    if not found:
        known = ", ".join(dict.fromkeys(p.partition for p in lists))
        raise UserError(f"{target}: not a published partition; expected one of {known}")
    if source:
        found = _of_source(found, source, target)
    if partition not in ("", found[0].name):  # a partition is validated on val
        found += [p for p in lists if p.name == "val"]
    count = Counter(p.name for p in found)
    doubtful = [p for p in found if count[p.name] > 1]
    if doubtful:
        variants = [p for p in doubtful if p.name == doubtful[0].name]
        which = ", ".join(f"{p.fingerprint.entries} of {'/'.join(p.sources)}" for p in variants)
        raise UserError(
            f"{dataset}/{variants[0].name}: repositories publish different lists of this name "
            f"(entries: {which}). Fix: choose one with --source"
        )
    return found


def split_files_of(dataset: str) -> list[PublishedSplitFile]:
    """Return the published lists of a dataset; raises `UserError` where there are none."""
    lists = read_protocols()
    found = [p for p in lists if p.dataset == dataset]
    if not found:
        known = ", ".join(dict.fromkeys(p.dataset for p in lists))
        raise UserError(f"{dataset}: no published lists of this dataset; expected one of {known}")
    return found


def _of_source(
    lists: list[PublishedSplitFile], source: str, target: str
) -> list[PublishedSplitFile]:
    """Return the lists that `source` publishes, with it as their only source."""
    every = list(dict.fromkeys(repository for p in lists for repository in p.sources))
    chosen = [r for r in every if source in (r, r.split("/")[1])]
    if not chosen:
        raise UserError(
            f"--source {source}: does not publish {target}; expected one of {', '.join(every)}"
        )
    return [p._replace(sources=(chosen[0],)) for p in lists if chosen[0] in p.sources]


def fetch_hint(path: Path, near: str) -> str:
    """Return the end of a message about a missing split file: the command that makes it, else
    `near` (a similar path), else the command that lists the published ones, or ""."""
    parts = path.with_suffix("").parts
    if "splits" not in parts:
        return near
    dataset, *rest = parts[len(parts) - parts[::-1].index("splits") :] or [""]
    if dataset in PREPARED:
        return f". Fix: write it with python -m tools.prepare {dataset}"
    names = {p.name for p in read_protocols() if p.dataset == dataset}
    target = "/".join([dataset, *rest[:1]])
    if "/".join(rest) in names:
        return f". Fix: python -m tools.splits fetch {target}"
    if rest[1:] == ["unlabeled"] and f"{rest[0]}/labeled" in names:
        return f". Fix: python -m tools.splits generate {target} --root data/{dataset}"
    return near or (f"; what is published: python -m tools.splits list {dataset}" if names else "")
