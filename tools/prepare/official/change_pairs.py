"""Change detection datasets: A/, B/ and label/, whose files stay as they are."""

from pathlib import Path

from dataset.protocols import fingerprint, lists_of
from tools.prepare.official.archives import Archive, Download, find_all
from tools.prepare.official.plan import Plan, Set, Tasks, tasks_of
from util.errors import UserError

FOLDERS = ("A", "B", "label")
SPLITS = Path("splits")
SUFFIX = ".png"


def plan_pairs(dataset: str, downloads: tuple[Download, ...], source: Path, partial: bool) -> Plan:
    """A/*.png, B/*.png and label/*.png of the names in all three folders.

    Raises `UserError` for a name in some of them only, and for one of the published lists at hand
    (in splits/) that is in none, unless `partial`.
    """
    found = find_all(source, [downloads], partial)
    archive = next((a for a in found.values() if a.members), next(iter(found.values())))
    top = _top(archive)
    files = {folder: archive.files(top + folder, SUFFIX) for folder in FOLDERS}
    names = sorted(set().union(*files.values()))
    whole = [name for name in names if all(name in members for members in files.values())]
    if not partial:
        for folder, members in files.items():
            _refuse_lack(f"{archive.path}: {top}{folder}/", set(names) - set(members))
        for listed, entries in _lists_at_hand(dataset).items():
            _refuse_lack(f"{archive.path}, compared with {listed}:", entries - set(whole))
    first, second, masks = (
        tasks_of({name: files[folder][name] for name in whole}, f"{folder}/{{}}{SUFFIX}")
        for folder in FOLDERS
    )
    samples = {name: Tasks(first[name], masks[name]) for name in whole}
    pairs = Set(samples, archive.title, archive.title)
    return Plan({"pairs": pairs}, tuple(second.values()))


def _top(archive: Archive) -> str:
    """Return the path of the three folders; raises `UserError` unless they are beside each other,
    once."""
    parents = [
        {name.partition(f"/{folder}/")[0] for name in map("/{}".format, archive.members)
         if f"/{folder}/" in name}
        for folder in FOLDERS
    ]  # fmt: skip
    common = set.intersection(*parents)
    if len(common) != 1:
        raise UserError(
            f"{archive.path}: holds {len(common)} folders with A, B and label, expected one; it is "
            "another download, or not whole"
        )
    return f"{common.pop()}/".removeprefix("/")


def _refuse_lack(where: str, lacking: set[str]) -> None:
    if lacking:
        raise UserError(
            f"{where} lacks {len(lacking)} names, such as {min(lacking)}{SUFFIX}; download "
            "incomplete files again, or give --partial"
        )


def _lists_at_hand(dataset: str) -> dict[Path, set[str]]:
    """Return the names of those published lists that are in splits/."""
    names: dict[Path, set[str]] = {}
    for published in lists_of(dataset):
        file = SPLITS / published.file
        if file.is_file() and fingerprint(text := file.read_bytes()) == published.fingerprint:
            names[file] = {line.removesuffix(SUFFIX) for line in text.decode().split()}
    return names
