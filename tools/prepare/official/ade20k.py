"""ADE20K as the scene parsing challenge has it: images and masks as they are."""

from pathlib import Path

from tools.prepare.official.archives import Download, find_all
from tools.prepare.official.run import Plan, Set, tasks_of

ADE = Download(
    "ADEChallengeData2016.zip",
    "ADEChallengeData2016",
    "MIT Scene Parsing Benchmark: sceneparsing.csail.mit.edu",
    sign="annotations/training",
)
COUNTS = {"training": 20210, "validation": 2000}


def plan(source: Path, partial: bool) -> Plan:
    """Plan images/SET/*.jpg and annotations/SET/*.png; masks stay 0 = other, 1 to 150."""
    archive = find_all(source, [(ADE,)], partial)[ADE]

    def part(name: str) -> Set:
        images, masks = f"images/{name}", f"annotations/{name}"
        return Set(
            tasks_of(archive.files(images, ".jpg"), f"{images}/{{}}.jpg"),
            tasks_of(archive.files(masks, ".png"), f"{masks}/{{}}.png"),
            ADE.archive,
        )

    return Plan({name: part(name) for name in COUNTS})
