"""Detect the format of annotations by their content, and read them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dataset.folders import walk
from tools.prepare.annotations import coco, label_images, label_studio, labelme, via, yolo
from tools.prepare.annotations.entries import Entry, read_json
from tools.prepare.annotations.model import Annotations, merged
from tools.prepare.faults import raise_faults
from util.errors import UserError, join_first

JSON: tuple[tuple[Callable[[object], bool], Callable[[Entry, Path], Annotations]], ...] = (
    (coco.is_panoptic, coco.read_panoptic),
    (coco.is_instances, coco.read_instances),
    (labelme.is_labelme, labelme.read_labelme),
    (label_studio.is_label_studio, label_studio.read_label_studio),
    (via.is_via, via.read_via),
)
"""Formats of JSON files: test and reader."""
FORMATS = (
    "COCO, LabelMe, Label Studio or VIA JSON, YOLO segmentation text files with data.yaml or "
    "classes.txt, masks with labelmap.txt, Pascal VOC palette masks or .mat arrays"
)


def read_annotations(path: Path, images: list[Path]) -> Annotations:
    """Read annotations in a file or folder, of any of `FORMATS`.

    Raises `UserError`, once all faults of several are printed, for any other format.
    """
    names_classes = path.name in (*yolo.NO_LABELS, "labelmap.txt")
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"--annotations {path}: no such file or folder")
    root = path if path.is_dir() else path.parent
    files = [path]
    if path.is_dir() or names_classes:
        files = sorted(Path(parent, name) for parent, _, names in walk(root) for name in names)
    by_suffix = {s: [f for f in files if f.suffix.lower() == s] for s in (".json", ".mat", ".png")}
    found = _read_json(by_suffix[".json"], root)
    if found is None:
        names = path if path.is_file() and path.name in yolo.NAMES else None
        found = _read_others(files, by_suffix, root, images, names)
    if found is None:
        kinds = Counter(file.suffix.lower() or "no suffix" for file in files)
        seen = join_first([f"{count} {kind}" for kind, count in kinds.most_common()], 5)
        hint = "; unpack the archive" if ".zip" in kinds else ""
        what = f" ({_keys(by_suffix['.json'][0])})" if by_suffix[".json"] else ""
        raise UserError(
            f"--annotations {path}: found {seen or 'no file'}{what}; expected {FORMATS}{hint}"
        )
    return found


def _read_others(
    files: list[Path],
    by_suffix: dict[str, list[Path]],
    root: Path,
    images: list[Path],
    names: Path | None,
) -> Annotations | None:
    """Read formats other than JSON; None for an unknown one.

    Args:
        names: YOLO's file of class names, if the user names it.
    """
    if folder := label_images.find_folder(root):
        masks = [file for file in by_suffix[".png"] if folder in file.parents]
        return label_images.read_masks(masks, folder, root)
    if by_suffix[".mat"]:
        return label_images.read_matlab(by_suffix[".mat"], root)
    label_map = root / "labelmap.txt"
    texts = yolo.label_files(files, root)
    if texts and label_map not in files:
        return yolo.read_yolo(texts, root, names)
    images_too = set(images)
    pngs = [file for file in by_suffix[".png"] if file not in images_too]
    if tasks := [file for file in pngs if label_studio.is_png_name(file.name)]:
        return label_studio.read_pngs(tasks, images)
    if pngs and (label_map.is_file() or all(map(label_images.has_palette, pngs))):
        return label_images.read_masks(pngs, root, root)
    return None


def _keys(file: Path) -> str:
    """Return the first keys of an unknown JSON file."""
    tree = read_json(file).value
    keys = join_first([str(key) for key in tree], 5) if isinstance(tree, dict) else "no keys"
    return f"{file.name} has {keys}"


def _read_json(files: list[Path], root: Path) -> Annotations | None:
    """Return the annotations of all JSON files that hold some; None where none does.

    Raises `UserError` for files of several formats.
    """
    parts: dict[Path, Annotations] = {}
    unknown: list[str] = []
    faults: list[UserError] = []
    for file in files:
        try:
            tree = read_json(file)
            if read := next((read for fits, read in JSON if fits(tree.value)), None):
                parts[file] = read(tree, root)
            else:
                unknown.append(file.name)
        except UserError as error:
            faults.append(error)
    raise_faults(faults)
    first: dict[str, Path] = {}
    for file, part in parts.items():
        first.setdefault(part.format, file)
    if len(first) > 1:
        (one, file), (other, second), *_ = first.items()
        raise UserError(
            f"--annotations: {file} is {one}, {second} is {other}; expected one format: name a file"
        )
    if not parts:
        return None
    found = merged(parts.values())
    if unknown:
        found.skipped[f"JSON files without annotations ({join_first(unknown, 3)})"] = len(unknown)
    return found
