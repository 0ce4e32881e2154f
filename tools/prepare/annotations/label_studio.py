"""Label Studio's exports: JSON and JSON-MIN (brush, bitmask, polygon, box, ellipse), or PNGs of one
class each."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from math import radians
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from dataset.file_content import load_picture
from dataset.image_files import SUFFIXES, image_size
from tools.prepare.annotations.entries import Entry
from tools.prepare.annotations.model import Annotations, Picture, Region
from tools.prepare.annotations.shapes import bitmap, corners, ellipse, opaque, picture_in, polygons
from util.errors import UserError
from util.numbers import ceil_div

LABELS = (
    "brushlabels", "bitmasklabels", "polygonlabels", "rectanglelabels", "ellipselabels", "labels",
)  # fmt: skip
FURTHER = "further annotations of one task"
PNG_NAME = re.compile(r"task-(\d+)-annotation-(\d+)-by-([^-]*)-(.+)-\d+\.png")
"""Task, annotation, author, and the names of the tag and of the class."""


def is_label_studio(tree: object) -> bool:
    """Return whether a JSON file holds tasks: with annotations, or with regions (JSON-MIN)."""
    tasks = tree if isinstance(tree, list) else [tree]
    return bool(tasks) and all(
        isinstance(task, dict)
        and (({"annotations", "completions"} & task.keys() and "data" in task) or _is_min(task))
        for task in tasks[:10]
    )


def read_label_studio(tree: Entry, root: Path) -> Annotations:
    """Read tasks; of several annotations of one, the ground truth, or else the latest.

    Raises `UserError` for a missing or wrong key.
    """
    tasks = tree.value if isinstance(tree.value, list) else [tree.value]
    latest: dict[object, tuple[str, int]] = {}
    for number, task in enumerate(tasks):
        key, when = object(), ""
        if _is_min(task) and "id" in task:  # JSON-MIN has an entry for each annotation of a task
            key, when = (str(task["id"]), str(task.get("image"))), str(task.get("updated_at") or "")
        latest[key] = max(latest.get(key, ("", -1)), (when, number))
    skipped = Counter({FURTHER: len(tasks) - len(latest)})
    entries = (Entry(tasks[number], tree.path, f"[{number}]") for _, number in latest.values())
    pictures = [_read_task(task, skipped) for task in entries]
    return Annotations("Label Studio", pictures, [], skipped, {})


def _read_task(task: Entry, skipped: Counter[str]) -> Picture:
    results = _min_results(task) if _is_min(task.value) else _results(task, skipped)
    if results is None:
        return Picture(task.path, _names(task), None, [], complete=False)
    before = skipped.total()
    found = [result for result in results if _has_area(result, skipped)]
    shown = {str(name) for result in found if (name := result.value.get("to_name"))}
    if len(shown) > 1:
        raise task.error(
            f"regions of several images ({', '.join(sorted(shown))}); expected one image in a task"
        )
    sizes = {result.size("original_width", "original_height") for result in found}
    if len(sizes) > 1:
        raise task.error(f"regions of images of several sizes, {sorted(sizes)}")
    regions = [region for result in found if (region := _region(result, skipped))]
    size, complete = sizes.pop() if sizes else None, skipped.total() == before
    return Picture(task.path, _names(task), size, regions, complete=complete)


def _is_min(task: Any) -> bool:
    """Return whether a task has JSON-MIN's layout: regions below the names of tags."""
    if not isinstance(task, dict) or "data" in task:
        return False
    return "annotator" in task or "annotation_id" in task


def _results(task: Entry, skipped: Counter[str]) -> list[Entry] | None:
    """Return the annotated results; None where a task has no annotation."""
    key = "annotations" if "annotations" in task.value else "completions"
    made = [a for a in task.entries(key) if not a.get("was_cancelled", bool, int, default=False)]
    if not made:
        return None
    skipped[FURTHER] += len(made) - 1

    def rank(place: int) -> tuple[bool, str, int]:
        value = made[place].value
        return value.get("ground_truth") is True, str(value.get("updated_at") or ""), place

    best = made[max(range(len(made)), key=rank)]
    return [_flat(result) for result in best.entries("result")]


def _flat(result: Entry) -> Entry:
    """Merge a result with its `value`, as in JSON-MIN."""
    value = result.entry("value").value  # raises unless it is an object
    return Entry(result.value | value, result.path, f"{result.where}.value")


def _min_results(task: Entry) -> list[Entry] | None:
    lists = [key for key, value in task.value.items() if isinstance(value, list)]
    return [entry for key in lists for entry in task.entries(key) if isinstance(entry.value, dict)]


def _has_area(result: Entry, skipped: Counter[str]) -> bool:
    """Return whether a region has an area; count it otherwise."""
    keys = {key for key, value in result.value.items() if value is not None}
    is_box = {"x", "y", "width", "height"} <= keys and "keypointlabels" not in keys
    if not (is_box or {"rle", "imageDataURL", "radiusX", "points"} & keys):
        skipped[f"regions of type {result.value.get('type', 'point or choice')}"] += 1
        return False
    if result.value.get("image_rotation"):
        raise result.error("the image was turned; expected 0", "image_rotation")
    return True


def _region(result: Entry, skipped: Counter[str]) -> Region | None:
    """Return a region; None without a class or an area, which is counted."""
    labels = next((result.value[key] for key in LABELS if result.value.get(key)), None)
    draw = _drawing(result)
    if draw is None:
        skipped["polygons of 1 or 2 points"] += 1
    elif labels is None:
        skipped["regions without a class"] += 1
    elif not isinstance(labels, list) or len(labels) != 1:
        raise result.error(f"found the classes {labels}; expected one of a region")
    else:
        return Region(str(labels[0]), result.where, draw)
    return None


def _drawing(result: Entry) -> Callable | None:
    """Return the function that draws a region (lengths are percentages); None without area."""
    value = result.value
    width, height = (side / 100 for side in result.size("original_width", "original_height"))
    if "rle" in value:
        return partial(_brush, result.get("rle", list))
    if "imageDataURL" in value:
        return partial(_bitmask, result.get("imageDataURL", str))
    if "radiusX" in value:
        x, y, rx, ry = (result.number(key) for key in ("x", "y", "radiusX", "radiusY"))
        turn = radians(result.number("rotation", default=0))
        return partial(ellipse, (x * width, y * height), (rx * width, ry * height), turn)
    if "points" in value:
        points = result.points("points")
        if len(points) < 3:
            return None
        return partial(polygons, [[v for x, y in points for v in (x * width, y * height)]])
    x, y, w, h = (result.number(key) for key in ("x", "y", "width", "height"))
    turn = result.number("rotation", default=0)
    return partial(polygons, [corners(x * width, y * height, w * width, h * height, turn)])


def _brush(rle: list[int], height: int, width: int) -> dict:
    """Draw the pixels that the brush covers by more than half."""
    alpha = unpack(rle, 4 * height * width).reshape(height, width, 4)[..., 3]
    return bitmap(alpha > alpha.max(initial=0) / 2)


def _bitmask(url: str, height: int, width: int) -> dict:
    return bitmap(opaque(picture_in(url, "imageDataURL", (width, height))))


def unpack(rle: list[int], count: int) -> np.ndarray:
    """Unpack bytes `[count]` of the format rle-pack (thi.ng).

    A header has the count (32 bits), the bits of a value less 1 (5 bits), and the four widths of
    lengths less 1 (4 bits each). A run has a flag for one repeated value (1 bit), the width of its
    length (2 bits), its length less 1, and its one value or all its values.

    Raises `ValueError`.
    """
    try:
        packed = bytes(rle)
    except (TypeError, ValueError):
        raise ValueError("rle: expected a list of bytes") from None
    place = 0

    def read(bits: int) -> int:
        nonlocal place
        end = place + bits
        if end > 8 * len(packed):
            raise ValueError("rle: truncated")
        chunk = int.from_bytes(packed[place // 8 : ceil_div(end, 8)], "big")
        place = end
        return chunk >> -end % 8 & (1 << bits) - 1

    total, word = read(32), read(5) + 1
    if total != count or word != 8:
        raise ValueError(f"rle: {total} values of {word} bits; expected {count} of 8 (RGBA)")
    widths = [read(4) + 1 for _ in range(4)]
    parts, done = [], 0
    while done < count:
        same = read(1)
        length = min(read(widths[read(2)]) + 1, count - done)
        values = read(8 if same else 8 * length).to_bytes(1 if same else length, "big")
        parts.append(values * length if same else values)
        done += length
    return np.frombuffer(b"".join(parts), np.uint8)


def _names(task: Entry) -> tuple[str, ...]:
    """Return possible names of a task's image: its address without the server's prefixes."""
    data = task.value.get("data", task.value)
    texts = {k: v for k, v in data.items() if isinstance(v, str)} if isinstance(data, dict) else {}
    paths = [_path(texts[key]) for key in sorted(texts, key=lambda key: key != "image")]
    names = [p for p in paths if Path(p).suffix.lower() in SUFFIXES]
    if not names:
        raise task.error("no image; expected its address in 'data'")
    return tuple(dict.fromkeys(names))


def _path(address: str) -> str:
    """Return the path in an address such as /data/local-files/?d=a/b.png or /data/upload/1/b."""
    parts = urlsplit(address.replace("\\", "/"))
    query = parse_qs(parts.query)
    path = query["d"][0] if "d" in query else unquote(parts.path)
    return path.rpartition("/")[2] if path.startswith("/data/upload/") else path


def is_png_name(name: str) -> bool:
    return PNG_NAME.fullmatch(name) is not None


def read_pngs(files: list[Path], images: list[Path]) -> Annotations:
    """Read masks of one class each, `task-1-annotation-2-by-3-tag-road-0.png`.

    The name has the task, not the image: the image of task 1 must be named `1.*` or `task-1.*`.
    The latest annotation of a task, by number, is read.
    """
    parsed = {file: match for file in files if (match := PNG_NAME.fullmatch(file.name))}
    before = _common_tag([match[4] for match in parsed.values()])
    tasks: dict[str, dict[int, list[tuple[Path, str]]]] = defaultdict(lambda: defaultdict(list))
    for file, match in parsed.items():
        tasks[match[1]][int(match[2])].append((file, match[4][len(before) :]))
    stems = {image.stem for image in images}
    if not any(name in stems for task in tasks for name in (task, f"task-{task}")):
        raise UserError(
            f"{files[0]}: the name has a task, not its image; expected images named such as "
            f"task-{min(tasks)}.jpg, or export JSON, which names them"
        )
    skipped: Counter[str] = Counter()
    pictures = []
    for task, made in tasks.items():
        skipped[FURTHER] += len(made) - 1
        latest = made[max(made)]
        regions = [Region(c, file.name, partial(_png, file)) for file, c in latest]
        size = image_size(latest[0][0])
        pictures.append(Picture(files[0].parent, (f"task-{task}", task), size, regions))
    return Annotations("Label Studio, one PNG per class", pictures, [], skipped, {})


def _common_tag(names: list[str]) -> str:
    """Return the name of the tag with its hyphen: the text before the first hyphen of all names."""
    heads = {name.partition("-")[0] for name in names}
    return f"{heads.pop()}-" if len(heads) == 1 and all("-" in name for name in names) else ""


def _png(file: Path, height: int, width: int) -> dict:
    picture = load_picture(file).convert("L")
    if picture.size != (width, height):
        raise ValueError(f"{picture.width}x{picture.height} pixels; expected {width}x{height}")
    return bitmap(opaque(picture))
