"""Label Studio's JSON and JSON-MIN: brush, bitmask, polygon, box, ellipse."""

from collections import Counter
from functools import partial
from math import radians
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from pydantic import FiniteFloat

from dataset.image_files import IMAGE_SUFFIXES
from tools.prepare.annotations.parsing import JsonEntry, Point, Side
from tools.prepare.annotations.shapes import bitmap, corners, ellipse, opaque, outline, picture_in
from tools.prepare.annotations.types import Annotations, Draw, ImageAnnotation, Region, Size, region
from util.numbers import ceil_div

LABELS = (
    "brushlabels", "bitmasklabels", "polygonlabels", "rectanglelabels", "ellipselabels", "labels",
)  # fmt: skip
FURTHER = "further annotations of one task"


def is_label_studio(tree: object) -> bool:
    """Return True if a JSON file holds tasks: with annotations, or with regions (JSON-MIN)."""
    tasks = tree if isinstance(tree, list) else [tree]
    return bool(tasks) and all(
        isinstance(task, dict)
        and (({"annotations", "completions"} & task.keys() and "data" in task) or _is_min(task))
        for task in tasks[:10]
    )


def read_label_studio(tree: JsonEntry, root: Path) -> Annotations:
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
    unread = Counter({FURTHER: len(tasks) - len(latest)})
    entries = (JsonEntry(tasks[number], tree.path, f"[{number}]") for _, number in latest.values())
    per_image = [_read_task(task, unread) for task in entries]
    return Annotations("Label Studio", per_image, unread=unread)


def _is_min(task: Any) -> bool:
    """Return True if a task has JSON-MIN's layout: regions below the names of tags."""
    return (
        isinstance(task, dict)
        and "data" not in task
        and ("annotator" in task or "annotation_id" in task)
    )


def _read_task(task: JsonEntry, unread: Counter[str]) -> ImageAnnotation:
    results = _min_results(task) if _is_min(task.value) else _results(task, unread)
    if results is None:
        return ImageAnnotation(task.path, _names(task), may_be_unannotated=True)
    shown = {str(name) for one in results if _has_area(one) and (name := one.value.get("to_name"))}
    if len(shown) > 1:
        raise task.error(
            f"regions of several images ({', '.join(sorted(shown))}); expected one image in a task"
        )
    sizes = {_size(one) for one in results if _has_area(one)}
    if len(sizes) > 1:
        raise task.error(f"regions of images of several sizes, {sorted(sizes)}")
    size = sizes.pop() if sizes else None
    return ImageAnnotation(task.path, _names(task), size, [_object(one) for one in results])


def _results(task: JsonEntry, unread: Counter[str]) -> list[JsonEntry] | None:
    """Return the results of the annotation to read; None where a task has no annotation."""
    key = "annotations"
    if task.get(key, list, default=None) is None and "completions" in task.value:
        key = "completions"
    made = [one for one in task.entries(key) if not one.get("was_cancelled", Any, default=False)]
    if not made:
        return None
    unread[FURTHER] += len(made) - 1

    def rank(place: int) -> tuple[bool, str, int]:
        value = made[place].value
        return value.get("ground_truth") is True, str(value.get("updated_at") or ""), place

    best = made[max(range(len(made)), key=rank)]
    return [
        JsonEntry(one.value | one.entry("value").value, one.path, one.place("value"))  # as JSON-MIN
        for one in best.entries("result")
    ]


def _min_results(task: JsonEntry) -> list[JsonEntry]:
    lists = [key for key, value in task.value.items() if isinstance(value, list)]
    return [one for key in lists for one in task.entries(key) if isinstance(one.value, dict)]


def _has_area(result: JsonEntry) -> bool:
    keys = {key for key, value in result.value.items() if value is not None}
    is_box = {"x", "y", "width", "height"} <= keys and "keypointlabels" not in keys
    return is_box or bool({"rle", "imageDataURL", "radiusX", "points"} & keys)


def _size(result: JsonEntry) -> Size:
    if result.value.get("image_rotation"):
        raise result.error("the image was turned; expected 0", "image_rotation")
    return result.get("original_width", Side), result.get("original_height", Side)


def _object(result: JsonEntry) -> Region | str:
    """Return a region; its kind without a class or an area."""
    if not _has_area(result):
        return f"regions of type {result.value.get('type', 'point or choice')}"
    labels = next((result.value[key] for key in LABELS if result.value.get(key)), None)
    if labels is None:
        return "regions without a class"
    if not isinstance(labels, list) or len(labels) != 1:
        raise result.error(f"found the classes {labels}; expected one of a region")
    return region(str(labels[0]), result.where, _drawing(result))


def _drawing(result: JsonEntry) -> Draw | str:
    """Return the function that draws a region with an area; lengths are percentages."""

    def lengths(*keys: str) -> list[float]:
        return (scale * [result.get(key, FiniteFloat) for key in keys]).tolist()

    scale = np.array(_size(result)) / 100
    turn = result.get("rotation", FiniteFloat, default=0)
    if "rle" in result.value:
        return partial(_brush, result.get("rle", list))
    if "imageDataURL" in result.value:
        return partial(_bitmask, result.get("imageDataURL", str))
    if "points" in result.value:
        return outline([np.reshape(result.get("points", list[Point]), (-1, 2)) * scale])
    if "radiusX" in result.value:
        return partial(ellipse, lengths("x", "y"), lengths("radiusX", "radiusY"), radians(turn))
    (x, y), (w, h) = lengths("x", "y"), lengths("width", "height")
    return outline([corners(x, y, w, h, turn)])


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


def _names(task: JsonEntry) -> tuple[str, ...]:
    """Return possible names of a task's image: its address without the server's prefixes."""
    data = task.value.get("data", task.value)
    texts = {k: v for k, v in data.items() if isinstance(v, str)} if isinstance(data, dict) else {}
    paths = [_path(texts[key]) for key in sorted(texts, key=lambda key: key != "image")]
    names = [p for p in paths if Path(p).suffix.lower() in IMAGE_SUFFIXES]
    if not names:
        raise task.error("no image; expected its address in 'data'")
    return tuple(dict.fromkeys(names))


def _path(address: str) -> str:
    """Return the path in an address such as /data/local-files/?d=a/b.png or /data/upload/1/b."""
    parts = urlsplit(address.replace("\\", "/"))
    query = parse_qs(parts.query)
    path = query["d"][0] if "d" in query else unquote(parts.path)
    return path.rpartition("/")[2] if path.startswith("/data/upload/") else path
