"""starts.jsonl of a run directory: a line for each start of the run."""

import json
from pathlib import Path
from typing import Any

STARTS_FILE = "starts.jsonl"
"""File that every run directory holds."""


def last_start(run: Path) -> dict[str, Any]:
    """Return the record of the last start in a run directory; empty where there is none."""
    try:
        *_, last = (run / STARTS_FILE).read_text(encoding="utf-8").splitlines()
        record = json.loads(last)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
