"""LEVIR-CD and WHU-CD, change detection in pieces of 256x256: A/, B/ and label/ are kept as they
are."""

from functools import partial
from pathlib import Path

from dataset.protocols import fingerprint, split_files_of
from tools.prepare.official.archives import Archive, Download
from tools.prepare.official.run import Dataset, Plan, SampleSet, tasks_of
from util.errors import UserError, counted

FOLDERS = ("A", "B", "label")
SPLITS_FOLDER = Path("splits")
SUFFIX = ".png"


def plan_pairs(dataset: str, found: dict[Download, Archive]) -> Plan:
    """Plan A/*.png, B/*.png and label/*.png of the names in all three folders.

    Faults are names in one or two of the folders only, and names in a published list in splits/
    that are in none.
    """
    archive = next((one for one in found.values() if one.members), next(iter(found.values())))
    top = _top(archive)
    tasks = {f: tasks_of(archive, f"{top}{f}/{{}}{SUFFIX}", f"{f}/{{}}{SUFFIX}") for f in FOLDERS}
    names = set().union(*tasks.values())
    complete = names.intersection(*tasks.values())
    lacking = {f"{top}{folder}/": names - files.keys() for folder, files in tasks.items()}
    for listed, entries in _available_lists(dataset).items():
        lacking[f"compared with {listed}, it"] = entries - complete
    faults = [
        f"{archive.path}: {where} lacks {counted(len(lost), 'name')}, such as {min(lost)}{SUFFIX}"
        for where, lost in lacking.items()
        if lost
    ]
    first, second, masks = ({n: files[n] for n in complete} for files in tasks.values())
    return Plan({"pairs": SampleSet(first, masks)}, tuple(second.values()), faults=faults)


def _top(archive: Archive) -> str:
    """Return the path of the folder of A, B and label; raises `UserError` unless there is one."""
    parents = [
        {name.partition(f"/{folder}/")[0] for name in map("/{}".format, archive.members)
         if f"/{folder}/" in name}
        for folder in FOLDERS
    ]  # fmt: skip
    common = set.intersection(*parents)
    if len(common) != 1:
        raise UserError(
            f"{archive.path}: holds {len(common)} folders with A, B and label, expected one; it is "
            "another download, or incomplete"
        )
    return f"{common.pop()}/".removeprefix("/")


def _available_lists(dataset: str) -> dict[Path, set[str]]:
    """Return the names in the published lists that are in splits/."""
    names: dict[Path, set[str]] = {}
    for published in split_files_of(dataset):
        file = SPLITS_FOLDER / published.file
        if file.is_file() and fingerprint(text := file.read_bytes()) == published.fingerprint:
            names[file] = {line.removesuffix(SUFFIX) for line in text.decode().split()}
    return names


def _dataset(name: str, title: str, archives: tuple[str, str], pairs: int) -> Dataset:
    about = f"{title}, crops of 256x256 as UniMatch and V2 publish them; files are not changed."
    pages = (
        "UniMatch's README, more-scenarios/remote-sensing",
        "UniMatch V2's README, remote-sensing",
    )
    downloads = (Download(a, "", p, "label") for a, p in zip(archives, pages, strict=True))
    return Dataset(about, (tuple(downloads),), {"pairs": pairs}, partial(plan_pairs, name))


# Pairs to train on, validate on and test on.
LEVIR = _dataset("levir", "LEVIR-CD", ("LEVIR-CD256.zip", "LEVIR-CD.zip"), 7120 + 1024 + 2048)
WHU = _dataset("whu", "WHU-CD", ("WHU-CD-256.zip", "WHU-CD.zip"), 5947 + 743 + 744)
