"""ADE20K as the scene parsing challenge has it: images and masks as they are."""

from pathlib import Path

from tools.prepare.official.archives import Download, find_all
from tools.prepare.official.plan import Plan, Set, pair, tasks_of

ADE = Download(
    "ADEChallengeData2016.zip",
    "ADEChallengeData2016",
    "MIT Scene Parsing Benchmark: sceneparsing.csail.mit.edu",
    sign="annotations/training",
)
COUNTS = {"training": 20210, "validation": 2000}


def plan(source: Path, partial: bool) -> Plan:
    """images/SET/*.jpg and annotations/SET/*.png; masks stay 0 = other, 1 to 150."""
    archive = find_all(source, [(ADE,)], partial)[ADE]
    sets = {}
    for name in COUNTS:
        images = archive.files(f"images/{name}", ".jpg")
        masks = archive.files(f"annotations/{name}", ".png")
        samples = pair(
            tasks_of(images, f"images/{name}/{{}}.jpg"),
            tasks_of(masks, f"annotations/{name}/{{}}.png"),
        )
        sets[name] = Set(samples, ADE.archive, ADE.archive)
    return Plan(sets)
