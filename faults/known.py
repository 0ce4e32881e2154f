"""What is known of faults, from run to run: whether tests find them, or why none can."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import yaml

from faults.plant import Fault
from util.errors import UserError
from util.writing import write_atomically

EXPLAINED = Path(__file__).with_name("explained.yaml")


class Results:
    """What became of faults, in a file that is written anew after each."""

    def __init__(self, file: Path):
        self.file = file
        self._known: dict[str, dict[str, str]] = {}
        if file.exists():
            try:
                self._known = json.loads(file.read_text())
            except ValueError:
                raise UserError(f"{file}: not results of this command; remove it") from None

    def note(self, fault: Fault, found: bool, tests: str) -> None:
        """`tests`: the state of those that were run."""
        self._known.setdefault(fault.path, {})[fault.name] = "found" if found else tests
        text = json.dumps(self._known)
        write_atomically(self.file, lambda file: file.write(text.encode()))

    def found(self, fault: Fault, tests: str) -> bool | None:
        """None where it is not known, or was not found by tests that have changed since."""
        known = self._known.get(fault.path, {}).get(fault.name)
        return True if known == "found" else False if known == tests else None


class Explained:
    """Faults that no test can find, and lines of which none can, with the reasons."""

    def __init__(self, file: Path = EXPLAINED):
        self.file = file
        self._whys: dict[str, dict[str, str]] = defaultdict(dict)
        """By file and fault; the file has them by reason."""
        for why, files in (yaml.safe_load(file.read_text()) or {}).items():
            for path, faults in files.items():
                self._whys[path] |= dict.fromkeys(faults, why)

    def why(self, fault: Fault) -> str | None:
        whys = self._whys[fault.path]
        return whys.get(fault.name) or whys.get(fault.before)

    def check(self, path: str, faults: Iterable[Fault]) -> None:
        """Raises `UserError` for an entry that explains none of the faults of a file."""
        there = {text for fault in faults for text in (fault.name, fault.before)}
        for text in self._whys[path]:
            if text not in there:
                raise UserError(
                    f"{self.file.name}: {path} has no fault {text!r}; remove the entry or mend it"
                )
