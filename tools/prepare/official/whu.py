"""WHU-CD in pieces of 256x256, as UniMatch and UniMatch V2 share it; files as they are."""

from functools import partial as bound

from tools.prepare.official.archives import Download
from tools.prepare.official.change_pairs import plan_pairs

DOWNLOADS = (
    Download("WHU-CD-256.zip", "", "UniMatch's README, more-scenarios/remote-sensing", "label"),
    Download("WHU-CD.zip", "", "UniMatch V2's README, remote-sensing", "label"),
)
COUNTS = {"pairs": 7434}
"""5947 to train on, 743 to validate on, 744 to test on."""

plan = bound(plan_pairs, "whu", DOWNLOADS)
