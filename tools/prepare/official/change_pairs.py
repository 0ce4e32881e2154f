"""LEVIR-CD and WHU-CD, change detection in pieces of 256x256: A/, B/ and label/ are kept as they
are."""

from functools import partial as bound
from pathlib import Path
from types import SimpleNamespace

from dataset.protocols import fingerprint, lists_of
from tools.prepare.official.archives import Archive, Download, find_all
from tools.prepare.official.run import Plan, Set, tasks_of
from util.errors import UserError, counted

FOLDERS = ("A", "B", "label")
SPLITS = Path("splits")
SUFFIX = ".png"
V1, V2 = "UniMatch's README, more-scenarios/remote-sensing", "UniMatch V2's README, remote-sensing"


def plan_pairs(dataset: str, downloads: tuple[Download, ...], source: Path, partial: bool) -> Plan:
    """Plan A/*.png, B/*.png and label/*.png of the names in all three folders.

    Raises `UserError`, unless `partial`, for a name in one or two of the folders only, and for a
    name in a published list in splits/ that is in none.
    """
    found = find_all(source, [downloads], partial)
    archive = next((a for a in found.values() if a.members), next(iter(found.values())))
    top = _top(archive)
    files = {folder: archive.files(top + folder, SUFFIX) for folder in FOLDERS}
    names = sorted(set().union(*files.values()))
    complete = [name for name in names if all(name in members for members in files.values())]
    if not partial:
        for folder, members in files.items():
            _refuse_lack(f"{archive.path}: {top}{folder}/", set(names) - set(members))
        for listed, entries in _available_lists(dataset).items():
            _refuse_lack(f"{archive.path}, compared with {listed}:", entries - set(complete))
    first, second, masks = (
        tasks_of({name: files[folder][name] for name in complete}, f"{folder}/{{}}{SUFFIX}")
        for folder in FOLDERS
    )
    pairs = Set(first, masks, archive.title)
    return Plan({"pairs": pairs}, tuple(second.values()))


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


def _refuse_lack(where: str, lacking: set[str]) -> None:
    if lacking:
        number = counted(len(lacking), "name")
        raise UserError(
            f"{where} lacks {number}, such as {min(lacking)}{SUFFIX}; download incomplete files "
            "again, or give --partial"
        )


def _available_lists(dataset: str) -> dict[Path, set[str]]:
    """Return the names in the published lists that are in splits/."""
    names: dict[Path, set[str]] = {}
    for published in lists_of(dataset):
        file = SPLITS / published.file
        if file.is_file() and fingerprint(text := file.read_bytes()) == published.fingerprint:
            names[file] = {line.removesuffix(SUFFIX) for line in text.decode().split()}
    return names


LEVIR = SimpleNamespace(
    __doc__="LEVIR-CD in pieces of 256x256, as UniMatch and UniMatch V2 share it; files as they "
    "are.",
    COUNTS={"pairs": 10192},  # 7120 to train on, 1024 to validate on, 2048 to test on
    plan=bound(
        plan_pairs,
        "levir",
        (Download("LEVIR-CD256.zip", "", V1, "label"), Download("LEVIR-CD.zip", "", V2, "label")),
    ),
)
WHU = SimpleNamespace(
    __doc__="WHU-CD in pieces of 256x256, as UniMatch and UniMatch V2 share it; files as they are.",
    COUNTS={"pairs": 7434},  # 5947 to train on, 743 to validate on, 744 to test on
    plan=bound(
        plan_pairs,
        "whu",
        (Download("WHU-CD-256.zip", "", V1, "label"), Download("WHU-CD.zip", "", V2, "label")),
    ),
)
