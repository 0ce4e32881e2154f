"""ADE20K of the scene parsing challenge; images and masks are not changed."""

from tools.prepare.official.archives import Archive, Download
from tools.prepare.official.run import Dataset, Plan, SampleSet, tasks_of

ADE = Download(
    "ADEChallengeData2016.zip",
    "ADEChallengeData2016",
    "MIT Scene Parsing Benchmark: sceneparsing.csail.mit.edu",
    marker_path="annotations/training",
)


def plan(found: dict[Download, Archive]) -> Plan:
    """Plan images/SET/*.jpg and annotations/SET/*.png; masks stay 0 = other, 1 to 150."""
    return Plan({
        name: SampleSet(
            tasks_of(found[ADE], f"images/{name}/{{}}.jpg"),
            tasks_of(found[ADE], f"annotations/{name}/{{}}.png"),
        )
        for name in ADE20K.counts
    })  # fmt: skip


ADE20K = Dataset(__doc__, ((ADE,),), {"training": 20210, "validation": 2000}, plan)
