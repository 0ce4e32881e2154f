"""Split files that follow from files on disk: complete sets, and the unlabelled rest."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dataset.folders import names_by_stem
from dataset.protocols import fingerprint, read_protocols
from dataset.samples import leaves_folder
from dataset.split_files import read_split_file, split_file_text, write_split_files
from util.errors import UserError, counted


class Layout(NamedTuple):
    """The lines of a dataset's published lists, `*` for the part that differs."""

    train: str
    val: str
    everything: str = "all/labeled"  # name of the list of all training images
    val_names: str | None = None  # file of validation names, for a common folder
    images: int | None = None  # number of training images, where no list of all is published


LAYOUTS = {
    "pascal": Layout(
        train="JPEGImages/*.jpg SegmentationClass/*.png",
        val="JPEGImages/*.jpg SegmentationClass/*.png",
        val_names="ImageSets/Segmentation/val.txt",
    ),
    "cityscapes": Layout(
        train="leftImg8bit/train/*_leftImg8bit.png gtFine/train/*_gtFine_labelTrainIds.png",
        val="leftImg8bit/val/*_leftImg8bit.png gtFine/val/*_gtFine_labelTrainIds.png",
        everything="all/train",
    ),
    "coco": Layout(
        train="train2017/*.jpg masks/*.png", val="val2017/*.jpg masks/*.png", images=118287
    ),
    "ade20k": Layout(
        train="images/training/*.jpg annotations/training/*.png",
        val="images/validation/*.jpg annotations/validation/*.png",
    ),
}


def files_by_name(root: Path, pattern: str) -> dict[str, str]:
    """Return files below `root`, as relative paths by their parts at `*`; sorted.

    A pattern without `*` is a folder of images; keys are their names without suffix.
    Raises `UserError` as `names_by_stem` does, and for a pattern that leaves `root`.
    """
    if leaves_folder(pattern):
        raise UserError(f"{pattern}: leads out of {root}; expected a folder or pattern below it")
    head, star, _ = pattern.partition("*")
    folder = head.rpartition("/")[0] if star else head.rstrip("/")
    before = f"{folder}/" if folder else ""
    found = names_by_stem(root / folder, pattern=pattern[len(before) :] if star else "*")
    return {stem: before + name for stem, name in found.items()}


def write_derived_lists(
    target: str, root: Path, folder: Path, names: Path | None = None
) -> list[str]:
    """Write val.txt and the missing split files of a partition, from the files below `root`.

    `pascal/92`: its unlabeled.txt, all training images that its labeled.txt lacks; `pascal/all`:
    the list of all training images; `pascal/val`: val.txt alone. Returns a line about each list.
    Raises `UserError` when the files do not give the published list, and see `write_split_files`.
    """
    dataset, _, partition = target.partition("/")
    if dataset not in LAYOUTS or not partition:
        raise UserError(
            f"generate {target}: expected DATASET/PARTITION of {', '.join(LAYOUTS)}; of other "
            "datasets the training images cannot be derived from the folders"
        )
    train, val = _whole_sets(dataset, root, folder, names)
    expected = LAYOUTS[dataset].images
    is_published = any((p.dataset, p.partition) == (dataset, partition) for p in read_protocols())
    if partition != "val" and is_published and expected not in (None, len(train)):
        raise UserError(
            f"{root}: found {counted(len(train), 'training image')}, expected {expected}. Fix: "
            "complete the download"
        )
    lists = {"val": val}
    if partition == "all":
        lists[LAYOUTS[dataset].everything] = train
    elif partition != "val":
        lists[f"{partition}/unlabeled"] = _unlabelled_lines(
            train, folder / target / "labeled.txt", root
        )
    files = {folder / dataset / f"{name}.txt": lines for name, lines in lists.items()}
    origins = [_published_origin(dataset, name, lines, root) for name, lines in lists.items()]
    remarks = write_split_files(files)
    return [f"{remark}; {origin}" for remark, origin in zip(remarks, origins, strict=True)]


def _whole_sets(
    dataset: str, root: Path, folder: Path, names: Path | None
) -> tuple[list[str], list[str]]:
    """Return the lines of all training images and of all validation images."""
    layout = LAYOUTS[dataset]
    if layout.val_names:
        val = _stems(names or _val_names(dataset, root, folder))
        masked = files_by_name(root, layout.train.split()[1]).keys()
        return _lines(layout.train, masked - val), _lines(layout.val, val)
    if names:
        raise UserError(
            f"--names {names}: the sets of {dataset} follow from its folders. Fix: leave it out"
        )
    return (
        _lines(layout.train, files_by_name(root, layout.train.split()[0])),
        _lines(layout.val, files_by_name(root, layout.val.split()[0])),
    )


def _val_names(dataset: str, root: Path, folder: Path) -> Path:
    """Return the file with the names of validation images: the dataset's, or a fetched list."""
    candidates = root / str(LAYOUTS[dataset].val_names), folder / dataset / "val.txt"
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(
        f"{candidates[0]}: no such file, and the validation images cannot be derived from the "
        f"folders. Fix: name the file with --names, or run "
        f"python -m tools.splits fetch {dataset}/val"
    )


def _stems(path: Path) -> set[str]:
    """Read the names of images from a file of names or of list lines."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    return {Path(line.split()[0]).stem for line in lines if line.strip()}


def _lines(pattern: str, names: Iterable[str]) -> list[str]:
    return [pattern.replace("*", name) for name in sorted(names)]


def _unlabelled_lines(train: list[str], labeled: Path, root: Path) -> list[str]:
    """Return the training lines whose image `labeled` does not list."""
    images = {line.split()[0] for line in train}
    listed = read_split_file(labeled, masks=True).samples
    for sample in listed:
        if sample.image not in images:
            raise UserError(
                f"{labeled} line {sample.line}: '{sample.image}' is not among the "
                f"{len(images)} training images in {root}"
            )
    taken = {sample.image for sample in listed}
    return [line for line in train if line.split()[0] not in taken]


def _published_origin(dataset: str, name: str, lines: list[str], root: Path) -> str:
    """Name the repositories that publish these lines under this name.

    Raises `UserError` where they publish other lines.
    """
    found = fingerprint(split_file_text(lines))
    variants = [p for p in read_protocols() if (p.dataset, p.name) == (dataset, name)]
    for p in variants:
        if p.fingerprint == found:
            return f"the list of {', '.join(p.sources)}"
    if not variants:
        return "not in splits/protocols.yaml, so not verified"
    raise UserError(
        f"{root}: its files do not give the published {dataset}/{name} (found {found}; expected "
        f"{' or '.join(str(p.fingerprint) for p in variants)}); nothing is written"
    )
