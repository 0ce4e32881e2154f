"""Detect the format of annotations by their content, and read them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dataset.folders import walk
from tools.prepare.annotations import coco, label_images, label_studio, labelme, matlab, via, yolo
from tools.prepare.annotations.label_studio_pngs import read_pngs
from tools.prepare.annotations.parsing import JsonEntry, read_json
from tools.prepare.annotations.types import Annotations, merged
from tools.prepare.faults import raise_all_faults
from util.errors import UserError, join_first

JSON: tuple[tuple[Callable[[object], bool], Callable[[JsonEntry, Path], Annotations]], ...] = (
    (coco.is_panoptic, coco.read_panoptic),
    (coco.is_instances, coco.read_instances),
    (labelme.is_labelme, labelme.read_labelme),
    (label_studio.is_label_studio, label_studio.read_label_studio),
    (via.is_via, via.read_via),
)
"""Formats of JSON files: test and reader."""
EXPECTED = (
    "COCO, LabelMe, Label Studio or VIA JSON, YOLO segmentation text files with data.yaml or "
    "classes.txt, masks with labelmap.txt, Pascal VOC palette masks or .mat arrays"
)


def read_annotations(path: Path, images: list[Path]) -> Annotations:
    """Read annotations in a file or folder, of any `EXPECTED` format.

    Raises `UserError`, once all faults of several are printed, for any other format.
    """
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"--annotations {path}: no such file or folder")
    root = path if path.is_dir() else path.parent
    files = [path]
    if path.is_dir() or path.name in (*yolo.NO_LABELS, label_images.LABEL_MAP):
        files = sorted(Path(parent, name) for parent, _, names in walk(root) for name in names)
    unknown: list[str] = []
    if found := _read_json(_ending(files, ".json"), root, unknown):
        return found
    names = path if path.is_file() and path.name in yolo.NAMES else None
    if found := _read_others(files, root, images, names):
        return found
    kinds = Counter(file.suffix.lower() or "no suffix" for file in files)
    seen = join_first([f"{count} {kind}" for kind, count in kinds.most_common()], 5)
    what = f" ({unknown[0]})" if unknown else ""
    hint = ". Fix: unpack the archive" if ".zip" in kinds else ""
    raise UserError(
        f"--annotations {path}: found {seen or 'no file'}{what}; expected {EXPECTED}{hint}"
    )


def _read_json(files: list[Path], root: Path, unknown: list[str]) -> Annotations | None:
    """Return the annotations of all JSON files that hold some; None where none does.

    Describes the other files in `unknown`. Raises `UserError` for files of several formats.
    """
    parts: dict[Path, Annotations] = {}
    faults: list[UserError] = []
    for file in files:
        try:
            tree = read_json(file)
            if read := next((read for fits, read in JSON if fits(tree.value)), None):
                parts[file] = read(tree, root)
            else:
                keys = [*tree.value] if isinstance(tree.value, dict) else ["no keys"]
                unknown.append(f"{file.name} has {join_first(keys, 5)}")
        except UserError as error:
            faults.append(error)
    raise_all_faults(faults)
    formats = {part.format: file for file, part in parts.items()}
    if len(formats) > 1:
        (one, file), (other, second), *_ = formats.items()
        raise UserError(
            f"--annotations: {file} is {one}, {second} is {other}; expected one format: name a file"
        )
    if not parts:
        return None
    found = merged(parts.values())
    if unknown:
        found.unread[f"JSON files without annotations ({join_first(unknown, 3)})"] = len(unknown)
    return found


def _read_others(
    files: list[Path], root: Path, images: list[Path], names: Path | None
) -> Annotations | None:
    """Read formats other than JSON; None for an unknown one. `names`: YOLO's file of class names,
    if the user names it."""
    pngs = _ending(files, ".png")
    if folder := label_images.find_folder(root):
        return label_images.read_masks([f for f in pngs if folder in f.parents], folder, root)
    if arrays := _ending(files, ".mat"):
        return matlab.read_matlab(arrays, root)
    label_map = root / label_images.LABEL_MAP
    if label_map not in files and (texts := yolo.label_files(files, root)):
        return yolo.read_yolo(texts, root, names)
    pngs = sorted({*pngs}.difference(images))
    if found := read_pngs(pngs, images):
        return found
    if pngs and (label_map.is_file() or all(map(label_images.has_palette, pngs))):
        return label_images.read_masks(pngs, root, root)
    return None


def _ending(files: list[Path], suffix: str) -> list[Path]:
    return [file for file in files if file.suffix.lower() == suffix]
