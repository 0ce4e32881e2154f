"""Label Studio's PNG masks of one class each, `task-1-annotation-2-by-3-tag-road-0.png`.

The name has the task, not the image: the image of task 1 must be named `1.*` or `task-1.*`.
"""

import re
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

from dataset.file_content import load_picture
from dataset.image_files import image_size
from tools.prepare.annotations.label_studio import FURTHER
from tools.prepare.annotations.shapes import bitmap, opaque
from tools.prepare.annotations.types import Annotations, ImageAnnotation, Region
from util.errors import UserError

PNG_NAME = re.compile(r"task-(\d+)-annotation-(\d+)-by-([^-]*)-(.+)-\d+\.png")
"""Task, annotation, author, and the names of the tag and of the class."""


def read_pngs(files: list[Path], images: list[Path]) -> Annotations | None:
    """Read the latest annotation, by number, of each task; None where no file has such a name.

    Raises `UserError` if no image has the name of a task.
    """
    parsed = {file: match for file in files if (match := PNG_NAME.fullmatch(file.name))}
    if not parsed:
        return None
    files = [*parsed]
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
    per_image = []
    for task, made in tasks.items():
        latest = made[max(made)]
        regions = [Region(label, file.name, partial(_png, file)) for file, label in latest]
        size = image_size(latest[0][0])
        per_image.append(ImageAnnotation(files[0].parent, (f"task-{task}", task), size, regions))
    unread = Counter({FURTHER: sum(len(made) - 1 for made in tasks.values())})
    return Annotations("Label Studio, one PNG per class", per_image, unread=unread)


def _common_tag(names: list[str]) -> str:
    """Return the name of the tag with its hyphen: the text before the first hyphen of all names."""
    heads = {name.partition("-")[0] for name in names}
    return f"{heads.pop()}-" if len(heads) == 1 and all("-" in name for name in names) else ""


def _png(file: Path, height: int, width: int) -> dict:
    picture = load_picture(file).convert("L")
    if picture.size != (width, height):
        raise ValueError(f"{picture.width}x{picture.height} pixels; expected {width}x{height}")
    return bitmap(opaque(picture))
