"""LEVIR-CD in pieces of 256x256, as UniMatch and UniMatch V2 share it; files as they are."""

from functools import partial as bound

from tools.prepare.official.archives import Download
from tools.prepare.official.change_pairs import plan_pairs

DOWNLOADS = (
    Download("LEVIR-CD256.zip", "", "UniMatch's README, more-scenarios/remote-sensing", "label"),
    Download("LEVIR-CD.zip", "", "UniMatch V2's README, remote-sensing", "label"),
)
COUNTS = {"pairs": 10192}
"""7120 to train on, 1024 to validate on, 2048 to test on."""

plan = bound(plan_pairs, "levir", DOWNLOADS)
